package foedus.treaty.checks.label.floor_test

import data.foedus.treaty.checks.label.floor
import data.foedus.treaty.samples

test_a_complete_question_passes if floor.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_label_classification_is_needed if {
	not floor.passes with input as json.remove(samples.question("model_admit"), ["label/classification"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not floor.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_an_unknown_rank_fails if {
	not floor.passes with input as samples.changed("model_admit", "/label/classification", "cosmic")
		with data.foedus.registers as samples.registers
}

test_a_lowered_label_fails if {
	not floor.passes with input as samples.changed("model_admit", "/model/id", "llama-3.1-8b")
		with data.foedus.registers as samples.registers
}
