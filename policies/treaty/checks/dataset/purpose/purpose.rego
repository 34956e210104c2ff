# METADATA
# title: DAT-003 permitted purpose
# description: >-
#   The purpose is one that the dataset was registered for (GDPR 5(1)(b)), or is recorded as compatible (6(4)) and has not lapsed.
package foedus.treaty.checks.dataset.purpose

import data.foedus.registers

code := "DAT-003"

points := {"dataset.use"}

reads := {"dataset.id", "purpose.code", "registers.datasets"}

after := {"DAT-001", "ENV-004"}

passes if input.purpose.code in registers.datasets[input.dataset.id].purposes

passes if {
	some entry in registers.datasets[input.dataset.id].compatible
	entry.purpose == input.purpose.code
	entry.expires_ns > input.now_ns
}
