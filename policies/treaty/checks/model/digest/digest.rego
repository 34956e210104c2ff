# METADATA
# title: MOD-002 registered digest
# description: >-
#   The manifest is, to the byte, the one that was registered under this version.
package foedus.treaty.checks.model.digest

import data.foedus.registers

code := "MOD-002"

points := {"model.admit", "rollout.deploy"}

reads := {"model.digest", "registers.models"}

after := {"MOD-001"}

passes if input.model.digest == registers.models[input.model.id].versions[input.model.version]
