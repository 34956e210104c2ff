package foedus.treaty.checks.dataset.registered_test

import data.foedus.treaty.checks.dataset.registered
import data.foedus.treaty.samples

test_a_complete_question_passes if registered.passes with input as samples.question("dataset_use")
	with data.foedus.registers as samples.registers

test_dataset_id_is_needed if {
	not registered.passes with input as json.remove(samples.question("dataset_use"), ["dataset/id"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not registered.passes with input as samples.question("dataset_use")
		with data.foedus.registers as {}
}

test_an_unknown_dataset_fails if {
	not registered.passes with input as samples.changed("dataset_use", "/dataset/id", "nothing")
		with data.foedus.registers as samples.registers
}
