# METADATA
# title: LBL-001 label not lowered
# description: >-
#   The label is at least the record's: rank of parents and datasets, released to no one whom they exclude.
package foedus.treaty.checks.label.floor

import data.foedus.registers

code := "LBL-001"

points := {"model.admit", "rollout.deploy"}

reads := {"label.classification", "registers.models"}

after := {"MOD-001"}

rank := registers.classification.rank

recorded := registers.models[input.model.id].labels[input.model.version]

passes if {
	rank[input.label.classification] >= rank[recorded.classification]
	released_to_no_more
}

released_to_no_more if rank[recorded.classification] == 0

released_to_no_more if {
	is_array(input.label.rel_to)
	every party in input.label.rel_to { party in recorded.rel_to }
}
