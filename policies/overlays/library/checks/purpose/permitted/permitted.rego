# METADATA
# title: XX-001 permitted purpose
# description: >-
#   The nation permits this purpose. The code carries the nation, for example `DE-001`.
package foedus.overlay.checks.purpose.permitted

import data.foedus.overlay

points := {"dataset.use", "egress.update", "infer.purpose", "rollout.deploy"}

code := concat("-", [overlay.nation, "001"])

passes if input.purpose.code in overlay.purposes
