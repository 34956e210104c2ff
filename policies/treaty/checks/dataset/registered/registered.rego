# METADATA
# title: DAT-001 registered
# description: >-
#   The nation registered this dataset.
package foedus.treaty.checks.dataset.registered

import data.foedus.registers

code := "DAT-001"

points := {"dataset.use"}

reads := {"dataset.id", "registers.datasets"}

after := set()

passes if registers.datasets[input.dataset.id]
