# METADATA
# title: ROL-002 accredited for the label
# description: >-
#   The label's rank is known and not above what the nation's clusters are accredited for.
package foedus.treaty.checks.rollout.accreditation

import data.foedus.registers

code := "ROL-002"

points := {"rollout.deploy"}

reads := {"label.classification"}

after := {"ENV-001"}

rank := registers.classification.rank

passes if rank[input.label.classification] <= rank[registers.nations[input.nation].accredited]
