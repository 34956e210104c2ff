# METADATA
# title: LIC-000 registered licence
# description: >-
#   The licence of the model is in the register.
package foedus.treaty.checks.licence.registered

import data.foedus.registers

code := "LIC-000"

points := {"infer.purpose", "model.admit", "rollout.deploy"}

reads := {"model.id", "registers.models"}

after := {"MOD-001"}

passes if registers.licences[registers.models[input.model.id].licence]
