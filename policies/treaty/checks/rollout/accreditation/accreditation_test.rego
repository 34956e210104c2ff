package foedus.treaty.checks.rollout.accreditation_test

import data.foedus.treaty.checks.rollout.accreditation
import data.foedus.treaty.samples

test_a_complete_question_passes if accreditation.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_label_classification_is_needed if {
	not accreditation.passes with input as json.remove(samples.question("rollout_deploy"), ["label/classification"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not accreditation.passes with input as samples.question("rollout_deploy")
		with data.foedus.registers as {}
}

test_too_high_fails if {
	not accreditation.passes with input as samples.changed("rollout_deploy", "/label/classification", "secret")
		with data.foedus.registers as samples.registers
}

test_unknown_fails if {
	not accreditation.passes with input as samples.changed("rollout_deploy", "/label/classification", "cosmic")
		with data.foedus.registers as samples.registers
}
