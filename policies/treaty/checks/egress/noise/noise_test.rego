package foedus.treaty.checks.egress.noise_test

import data.foedus.treaty.checks.egress.noise
import data.foedus.treaty.samples

test_a_complete_question_passes if noise.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_noise_multiplier_is_needed if {
	not noise.passes with input as json.remove(samples.question("egress_update"), ["update/noise_multiplier"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not noise.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_less_than_none_fails if {
	not noise.passes with input as samples.changed("egress_update", "/update/noise_multiplier", -1)
		with data.foedus.registers as samples.registers
}

test_text_fails if {
	not noise.passes with input as samples.changed("egress_update", "/update/noise_multiplier", "9")
		with data.foedus.registers as samples.registers
}
