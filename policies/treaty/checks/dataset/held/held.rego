# METADATA
# title: DAT-010 not withdrawn
# description: >-
#   The nation has not withdrawn the dataset.
package foedus.treaty.checks.dataset.held

import data.foedus.registers

code := "DAT-010"

points := {"dataset.use"}

reads := {"dataset.id", "registers.datasets"}

after := {"DAT-001"}

passes if registers.datasets[input.dataset.id].withdrawn == false
