# METADATA
# title: EGR-004 bytes
# description: >-
#   No larger than the smaller of the treaty's and the nation's limit.
package foedus.treaty.checks.egress.bytes

import data.foedus.registers

code := "EGR-004"

points := {"egress.update"}

reads := {"update.bytes"}

after := {"ENV-001"}

passes if {
	is_number(input.update.bytes)
	input.update.bytes > 0
	input.update.bytes <= registers.limits.max_update_bytes
	input.update.bytes <= registers.nations[input.nation].max_update_bytes
}
