package foedus.treaty.checks.approval.roles_test

import data.foedus.treaty.checks.approval.roles
import data.foedus.treaty.samples

test_a_complete_question_passes if roles.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_approvals_is_needed if {
	not roles.passes with input as json.remove(samples.question("rollout_deploy"), ["approvals"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not roles.passes with input as samples.question("rollout_deploy")
		with data.foedus.registers as {}
}

test_no_list_fails if {
	not roles.passes with input as samples.changed("rollout_deploy", "/approvals", "all")
		with data.foedus.registers as samples.registers
}
