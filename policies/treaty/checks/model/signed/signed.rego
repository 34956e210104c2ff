# METADATA
# title: MOD-003 signed
# description: >-
#   The publishers' threshold signed it; for a rollout this very nation consented too.
package foedus.treaty.checks.model.signed

code := "MOD-003"

points := {"model.admit", "rollout.deploy"}

reads := {"model.signatures"}

after := {"MOD-001"}

signers contains signature.by if {
	some signature in input.model.signatures
	signature.verified == true
}

passes if {
	input.decision_point == "model.admit"
	"publisher" in signers
}

passes if {
	input.decision_point == "rollout.deploy"
	"publisher" in signers
	concat(":", ["nation", input.nation]) in signers
}
