package foedus.treaty.checks.model.released_test

import data.foedus.treaty.checks.model.released
import data.foedus.treaty.samples

test_a_complete_question_passes if released.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_model_version_is_needed if {
	not released.passes with input as json.remove(samples.question("rollout_deploy"), ["model/version"])
		with data.foedus.registers as samples.registers
}

test_a_pre_release_fails if {
	not released.passes with input as samples.changed("rollout_deploy", "/model/version", "1.1.0-rc.1")
		with data.foedus.registers as samples.registers
}

test_a_line_more_fails if {
	not released.passes with input as samples.changed("rollout_deploy", "/model/version", "1.0.0\n")
		with data.foedus.registers as samples.registers
}
