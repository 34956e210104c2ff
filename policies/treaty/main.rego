# METADATA
# title: The treaty's decision
# description: >-
#   What the treaty says to one question. Every check under `checks` that names the decision point (or `*`) is required;
#   a check passes only by saying so, so whatever is missing fails by itself. The verdict is never "deny if".
# custom:
#   contract: codes only; texts, legal references and remedies are not written in rules
package foedus.treaty

import data.foedus.treaty.checks

# METADATA
# description: The whole answer. Undefined, when the bundle carries no revision, and undefined is a no.
# entrypoint: true
decision := {
	"curable": sort([code | some code in reported; code in curable]),
	"failed": sort(reported),
	"obligations": sort(obligations),
	"passed": sort(required & passed),
	"reads": {code: sort(paths) | some code, paths in reads},
	"required": sort(required),
	"revision": data.foedus.treaty.revision,
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

# A check that reads what another failing check already reports as missing is not reported a second time.
reported contains code if {
	some code in failed
	count(after[code] & failed) == 0
}

after[checks[family][rule].code] := checks[family][rule].after

reads[code] := checks[family][rule].reads if {
	code := checks[family][rule].code
	code in required
}

obligations contains "receipt.journal" if input.decision_point == "egress.update"

obligations contains "epsilon.charge" if {
	input.decision_point == "dataset.use"
	input.round.epsilon_micro > 0
}
