package foedus.treaty.checks.rollout.freeze_test

import data.foedus.treaty.checks.rollout.freeze
import data.foedus.treaty.samples

test_a_complete_question_passes if freeze.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_now_ns_is_needed if {
	not freeze.passes with input as json.remove(samples.question("rollout_deploy"), ["now_ns"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not freeze.passes with input as samples.question("rollout_deploy")
		with data.foedus.registers as {}
}

test_a_clock_of_text_fails if {
	not freeze.passes with input as samples.changed("rollout_deploy", "/now_ns", "now")
		with data.foedus.registers as samples.registers
}
