# METADATA
# title: MOD-006 safetensors
# description: >-
#   The weights are safetensors, which cannot carry code.
package foedus.treaty.checks.model.format

code := "MOD-006"

points := {"model.admit", "rollout.deploy"}

reads := {"model.format"}

after := {"MOD-001"}

passes if input.model.format == "safetensors"
