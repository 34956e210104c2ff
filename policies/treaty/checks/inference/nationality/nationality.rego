# METADATA
# title: INF-002 nationality
# description: >-
#   When the label is classified, the user's nationality is in its REL TO.
package foedus.treaty.checks.inference.nationality

import data.foedus.registers

code := "INF-002"

points := {"infer.purpose"}

reads := {"subject.nationality", "label.classification"}

after := set()

rank := registers.classification.rank

passes if {
	rank[input.label.classification] == 0
	is_string(input.subject.nationality)
}

passes if {
	rank[input.label.classification] > 0
	input.subject.nationality in input.label.rel_to
}
