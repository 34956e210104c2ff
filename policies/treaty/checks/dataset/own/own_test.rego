package foedus.treaty.checks.dataset.own_test

import data.foedus.treaty.checks.dataset.own
import data.foedus.treaty.samples

test_a_complete_question_passes if own.passes with input as samples.question("dataset_use")
	with data.foedus.registers as samples.registers

test_dataset_id_is_needed if {
	not own.passes with input as json.remove(samples.question("dataset_use"), ["dataset/id"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not own.passes with input as samples.question("dataset_use")
		with data.foedus.registers as {}
}

test_another_nations_fails if {
	not own.passes with input as samples.changed("dataset_use", "/dataset/id", "borrowed")
		with data.foedus.registers as samples.registers
}
