# METADATA
# title: EGR-007 participants
# description: >-
#   At least the larger of the treaty's and the nation's minimum take part, counted from their signed statements.
package foedus.treaty.checks.egress.participants

import data.foedus.registers

code := "EGR-007"

points := {"egress.update"}

reads := {"round.participants"}

after := {"ENV-001"}

passes if {
	is_number(input.round.participants)
	input.round.participants >= registers.limits.min_participants
	input.round.participants >= registers.nations[input.nation].min_participants
}
