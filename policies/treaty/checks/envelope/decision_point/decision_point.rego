# METADATA
# title: ENV-002 known decision point
# description: >-
#   The treaty knows what is being decided.
package foedus.treaty.checks.envelope.decision_point

import data.foedus.registers

code := "ENV-002"

points := {"*"}

reads := {"decision_point"}

after := set()

passes if input.decision_point in registers.decision_points
