# METADATA
# title: ROL-001 accredited region
# description: >-
#   The cluster stands in a region that the nation accredited.
package foedus.treaty.checks.rollout.region

import data.foedus.registers

code := "ROL-001"

points := {"rollout.deploy"}

reads := {"env.region"}

after := {"ENV-001"}

passes if input.env.region in registers.nations[input.nation].regions
