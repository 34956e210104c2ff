# METADATA
# title: MOD-005 released
# description: >-
#   A pre-release is never rolled out.
package foedus.treaty.checks.model.released

code := "MOD-005"

points := {"rollout.deploy"}

reads := {"model.version"}

after := {"MOD-001"}

passes if regex.match(`^[0-9]+\.[0-9]+\.[0-9]+$`, input.model.version)
