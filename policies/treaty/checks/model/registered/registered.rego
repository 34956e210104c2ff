# METADATA
# title: MOD-001 registered
# description: >-
#   The record holds this model and this version of it.
package foedus.treaty.checks.model.registered

import data.foedus.registers

code := "MOD-001"

points := {"model.admit", "rollout.deploy"}

reads := {"model.id", "model.version", "registers.models"}

after := set()

passes if registers.models[input.model.id].versions[input.model.version]
