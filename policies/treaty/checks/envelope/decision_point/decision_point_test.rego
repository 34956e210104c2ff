package foedus.treaty.checks.envelope.decision_point_test

import data.foedus.treaty.checks.envelope.decision_point
import data.foedus.treaty.samples

test_a_complete_question_passes if decision_point.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_decision_point_is_needed if {
	not decision_point.passes with input as json.remove(samples.question("model_admit"), ["decision_point"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not decision_point.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_an_unknown_one_fails if {
	not decision_point.passes with input as samples.changed("model_admit", "/decision_point", "model.delete")
		with data.foedus.registers as samples.registers
}
