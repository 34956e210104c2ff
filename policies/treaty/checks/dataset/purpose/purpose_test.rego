package foedus.treaty.checks.dataset.purpose_test

import data.foedus.treaty.checks.dataset.purpose
import data.foedus.treaty.samples

test_a_complete_question_passes if purpose.passes with input as samples.question("dataset_use")
	with data.foedus.registers as samples.registers

test_purpose_code_is_needed if {
	not purpose.passes with input as json.remove(samples.question("dataset_use"), ["purpose/code"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not purpose.passes with input as samples.question("dataset_use")
		with data.foedus.registers as {}
}

test_a_purpose_of_others_fails if {
	not purpose.passes with input as samples.changed("dataset_use", "/purpose/code", "treaty-operation")
		with data.foedus.registers as samples.registers
}
