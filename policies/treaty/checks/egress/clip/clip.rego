# METADATA
# title: EGR-005 clipped
# description: >-
#   The nation clipped the update to a norm above zero and within the treaty's bound (millionths).
package foedus.treaty.checks.egress.clip

import data.foedus.registers

code := "EGR-005"

points := {"egress.update"}

reads := {"update.clip_norm"}

after := set()

passes if {
	is_number(input.update.clip_norm)
	input.update.clip_norm > 0
	input.update.clip_norm <= registers.limits.max_clip_norm
}
