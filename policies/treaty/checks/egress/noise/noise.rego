# METADATA
# title: EGR-006 noise
# description: >-
#   The noise multiplier (millionths) is at least the treaty's floor.
package foedus.treaty.checks.egress.noise

import data.foedus.registers

code := "EGR-006"

points := {"egress.update"}

reads := {"update.noise_multiplier"}

after := set()

passes if {
	is_number(input.update.noise_multiplier)
	input.update.noise_multiplier >= registers.limits.min_noise_multiplier
}
