# METADATA
# title: LIC-001 licensed purpose
# description: >-
#   No tag of the purpose is one that the licence excludes.
package foedus.treaty.checks.licence.purpose

import data.foedus.registers

code := "LIC-001"

points := {"infer.purpose", "model.admit", "rollout.deploy"}

reads := {"model.id", "purpose.code", "registers.models"}

after := {"ENV-004", "LIC-000", "MOD-001"}

excluded := registers.licences[registers.models[input.model.id].licence].excluded_tags

tags := registers.purposes[input.purpose.code].tags

passes if {
	is_array(excluded)
	is_array(tags)
	every tag in tags { not tag in excluded }
}
