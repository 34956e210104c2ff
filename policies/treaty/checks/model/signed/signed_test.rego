package foedus.treaty.checks.model.signed_test

import data.foedus.treaty.checks.model.signed
import data.foedus.treaty.samples

test_a_complete_question_passes if signed.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_model_signatures_is_needed if {
	not signed.passes with input as json.remove(samples.question("rollout_deploy"), ["model/signatures"])
		with data.foedus.registers as samples.registers
}

test_nobody_fails if {
	not signed.passes with input as samples.changed("rollout_deploy", "/model/signatures", [])
		with data.foedus.registers as samples.registers
}

test_an_unverified_publisher_fails if {
	not signed.passes with input as samples.changed("rollout_deploy", "/model/signatures/0/verified", false)
		with data.foedus.registers as samples.registers
}

test_another_nation_fails if {
	not signed.passes with input as samples.changed("rollout_deploy", "/model/signatures/1/by", "nation:DE")
		with data.foedus.registers as samples.registers
}

test_the_word_true_fails if {
	not signed.passes with input as samples.changed("rollout_deploy", "/model/signatures/0/verified", "true")
		with data.foedus.registers as samples.registers
}
