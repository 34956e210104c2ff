package foedus.treaty.checks.envelope.nation_test

import data.foedus.treaty.checks.envelope.nation
import data.foedus.treaty.samples

test_a_complete_question_passes if nation.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_nation_is_needed if {
	not nation.passes with input as json.remove(samples.question("model_admit"), ["nation"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not nation.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_a_nation_outside_the_register_fails if {
	not nation.passes with input as samples.changed("model_admit", "/nation", "XX")
		with data.foedus.registers as samples.registers
}

test_lower_case_fails if {
	not nation.passes with input as samples.changed("model_admit", "/nation", "fr")
		with data.foedus.registers as samples.registers
}
