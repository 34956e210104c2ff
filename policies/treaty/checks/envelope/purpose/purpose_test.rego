package foedus.treaty.checks.envelope.purpose_test

import data.foedus.treaty.checks.envelope.purpose
import data.foedus.treaty.samples

test_a_complete_question_passes if purpose.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_purpose_is_needed if {
	not purpose.passes with input as json.remove(samples.question("model_admit"), ["purpose"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not purpose.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_an_unregistered_purpose_fails if {
	not purpose.passes with input as samples.changed("model_admit", "/purpose/code", "weather")
		with data.foedus.registers as samples.registers
}
