# METADATA
# title: APR-002 no key in two roles
# description: >-
#   No key fills two roles of one question.
package foedus.treaty.checks.approval.persons

code := "APR-002"

points := {"egress.update", "rollout.deploy"}

reads := {"approvals"}

after := {"ENV-001"}

roles_of[approval.by] contains approval.role if some approval in input.approvals

passes if {
	is_array(input.approvals)
	every roles in roles_of { count(roles) == 1 }
}
