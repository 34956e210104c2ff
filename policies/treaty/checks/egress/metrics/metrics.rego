# METADATA
# title: EGR-009 metrics
# description: >-
#   Every metric that leaves with the update is on the list.
package foedus.treaty.checks.egress.metrics

import data.foedus.registers

code := "EGR-009"

points := {"egress.update"}

reads := {"update.metrics"}

after := set()

passes if {
	is_array(input.update.metrics)
	every metric in input.update.metrics { metric in registers.limits.metrics }
}
