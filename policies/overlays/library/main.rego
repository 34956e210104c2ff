# METADATA
# title: A nation's decision
# description: >-
#   What a nation's overlay says to one question, beside the treaty and never instead of it: both must allow, so an
#   overlay can only narrow. The library is shared; an overlay is data alone, or adds checks of its own under `checks`.
package foedus.overlay

import data.foedus.overlay.checks

# METADATA
# description: The whole answer. Undefined, and so a no, where the overlay does not say whose it is or which revision.
# entrypoint: true
decision := {
	"curable": sort([code | some code in failed; code in curable]),
	"failed": sort(failed),
	"nation": data.foedus.overlay.nation,
	"obligations": sort(data.foedus.overlay.obligations),
	"passed": sort(required & passed),
	"reads": {},
	"required": sort(required),
	"revision": data.foedus.overlay.revision,
	"verdict": verdict,
}

default verdict := "deny"

verdict := "allow" if {
	count(required) > 0
	count(failed) == 0
}

verdict := "needs_approval" if {
	count(failed) > 0
	count(failed - curable) == 0
}

required contains checks[family][rule].code if "*" in checks[family][rule].points

required contains checks[family][rule].code if input.decision_point in checks[family][rule].points

passed contains checks[family][rule].code if checks[family][rule].passes

curable contains checks[family][rule].code if checks[family][rule].curable

failed := required - passed
