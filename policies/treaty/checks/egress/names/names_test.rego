package foedus.treaty.checks.egress.names_test

import data.foedus.treaty.checks.egress.names
import data.foedus.treaty.samples

test_a_complete_question_passes if names.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_tensors_is_needed if {
	not names.passes with input as json.remove(samples.question("egress_update"), ["update/tensors"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not names.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_a_sentence_fails if {
	not names.passes with input as samples.changed("egress_update", "/update/tensors/0/name", "the minister said")
		with data.foedus.registers as samples.registers
}

test_nothing_fails if {
	not names.passes with input as samples.changed("egress_update", "/update/tensors/0/name", "")
		with data.foedus.registers as samples.registers
}
