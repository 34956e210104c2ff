# METADATA
# title: APR-001 approved by each role
# description: >-
#   Each role that the treaty names for this decision point has a verified approval, by this nation, of these very bytes, not expired.
package foedus.treaty.checks.approval.roles

import data.foedus.registers

code := "APR-001"

points := {"egress.update", "rollout.deploy"}

reads := {"approvals"}

after := {"ENV-001"}

curable := true

subject := input.model.digest if input.decision_point == "rollout.deploy"

subject := input.update.digest if input.decision_point == "egress.update"

approved contains approval.role if {
	some approval in input.approvals
	approval.verified == true
	approval.nation == input.nation
	approval.subject == subject
	approval.expires_ns > input.now_ns
}

passes if {
	is_array(input.approvals)
	every role in registers.approvals[input.decision_point] { role in approved }
}
