# METADATA
# title: INF-001 clearance
# description: >-
#   The user's clearance is at least the label's rank.
package foedus.treaty.checks.inference.clearance

import data.foedus.registers

code := "INF-001"

points := {"infer.purpose"}

reads := {"subject.clearance", "label.classification"}

after := set()

rank := registers.classification.rank

passes if rank[input.subject.clearance] >= rank[input.label.classification]
