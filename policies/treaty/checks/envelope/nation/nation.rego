# METADATA
# title: ENV-001 party to the treaty
# description: >-
#   The nation is in the register, spelled as there.
package foedus.treaty.checks.envelope.nation

import data.foedus.registers

code := "ENV-001"

points := {"*"}

reads := {"nation"}

after := {"ENV-002"}

passes if registers.nations[input.nation]
