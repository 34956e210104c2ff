package foedus.treaty.checks.approval.persons_test

import data.foedus.treaty.checks.approval.persons
import data.foedus.treaty.samples

test_a_complete_question_passes if persons.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_approvals_is_needed if {
	not persons.passes with input as json.remove(samples.question("rollout_deploy"), ["approvals"])
		with data.foedus.registers as samples.registers
}

test_no_list_fails if {
	not persons.passes with input as samples.changed("rollout_deploy", "/approvals", "all")
		with data.foedus.registers as samples.registers
}
