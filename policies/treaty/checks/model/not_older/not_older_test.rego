package foedus.treaty.checks.model.not_older_test

import data.foedus.treaty.checks.model.not_older
import data.foedus.treaty.samples

test_a_complete_question_passes if not_older.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_model_running_version_is_needed if {
	not not_older.passes with input as json.remove(samples.question("rollout_deploy"), ["model/running_version"])
		with data.foedus.registers as samples.registers
}

test_a_newer_one_running_fails if {
	not not_older.passes with input as samples.changed("rollout_deploy", "/model/running_version", "1.0.1")
		with data.foedus.registers as samples.registers
}

test_a_number_fails if {
	not not_older.passes with input as samples.changed("rollout_deploy", "/model/running_version", 1)
		with data.foedus.registers as samples.registers
}

test_no_version_fails if {
	not not_older.passes with input as samples.changed("rollout_deploy", "/model/running_version", "latest")
		with data.foedus.registers as samples.registers
}
