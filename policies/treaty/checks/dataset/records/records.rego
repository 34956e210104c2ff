# METADATA
# title: DAT-009 enough records
# description: >-
#   The dataset has at least as many records as the treaty asks for, so that no update speaks of a few people.
package foedus.treaty.checks.dataset.records

import data.foedus.registers

code := "DAT-009"

points := {"dataset.use"}

reads := {"dataset.id", "registers.datasets"}

after := {"DAT-001"}

passes if {
	is_number(registers.datasets[input.dataset.id].records)
	registers.datasets[input.dataset.id].records >= registers.limits.min_records
}
