# METADATA
# title: ENV-004 registered purpose
# description: >-
#   The purpose is one that the parties agreed on.
package foedus.treaty.checks.envelope.purpose

import data.foedus.registers

code := "ENV-004"

points := {"*"}

reads := {"purpose.code"}

after := {"ENV-002"}

passes if registers.purposes[input.purpose.code]
