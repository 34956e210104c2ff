# METADATA
# title: OVL-001 the nation's overlay
# description: >-
#   The question is this nation's own, so it is this nation's overlay that answers.
package foedus.overlay.checks.overlay.own

import data.foedus.overlay

points := {"*"}

code := "OVL-001"

passes if input.nation == overlay.nation
