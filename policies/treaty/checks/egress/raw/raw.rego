# METADATA
# title: EGR-001 no raw data
# description: >-
#   The update is declared, by the one who looked, to hold no raw records: the boolean false and nothing like it.
package foedus.treaty.checks.egress.raw

code := "EGR-001"

points := {"egress.update"}

reads := {"update.raw"}

after := set()

passes if input.update.raw == false
