package foedus.treaty.checks.dataset.held_test

import data.foedus.treaty.checks.dataset.held
import data.foedus.treaty.samples

test_a_complete_question_passes if held.passes with input as samples.question("dataset_use")
	with data.foedus.registers as samples.registers

test_dataset_id_is_needed if {
	not held.passes with input as json.remove(samples.question("dataset_use"), ["dataset/id"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not held.passes with input as samples.question("dataset_use")
		with data.foedus.registers as {}
}

test_withdrawn_fails if {
	not held.passes with input as samples.changed("dataset_use", "/dataset/id", "few")
		with data.foedus.registers as samples.registers
}
