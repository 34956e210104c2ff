# METADATA
# title: DAT-002 this nation's own
# description: >-
#   A nation decides about its own datasets only.
package foedus.treaty.checks.dataset.own

import data.foedus.registers

code := "DAT-002"

points := {"dataset.use"}

reads := {"dataset.id", "registers.datasets"}

after := {"DAT-001"}

passes if registers.datasets[input.dataset.id].nation == input.nation
