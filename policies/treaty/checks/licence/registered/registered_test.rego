package foedus.treaty.checks.licence.registered_test

import data.foedus.treaty.checks.licence.registered
import data.foedus.treaty.samples

test_a_complete_question_passes if registered.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_model_id_is_needed if {
	not registered.passes with input as json.remove(samples.question("model_admit"), ["model/id"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not registered.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_an_unknown_model_fails if {
	not registered.passes with input as samples.changed("model_admit", "/model/id", "unknown")
		with data.foedus.registers as samples.registers
}
