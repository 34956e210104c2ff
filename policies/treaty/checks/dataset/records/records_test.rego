package foedus.treaty.checks.dataset.records_test

import data.foedus.treaty.checks.dataset.records
import data.foedus.treaty.samples

test_a_complete_question_passes if records.passes with input as samples.question("dataset_use")
	with data.foedus.registers as samples.registers

test_dataset_id_is_needed if {
	not records.passes with input as json.remove(samples.question("dataset_use"), ["dataset/id"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not records.passes with input as samples.question("dataset_use")
		with data.foedus.registers as {}
}

test_too_few_fails if {
	not records.passes with input as samples.changed("dataset_use", "/dataset/id", "few")
		with data.foedus.registers as samples.registers
}
