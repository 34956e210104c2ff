package foedus.treaty.checks.envelope.clock_test

import data.foedus.treaty.checks.envelope.clock
import data.foedus.treaty.samples

test_a_complete_question_passes if clock.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_now_ns_is_needed if {
	not clock.passes with input as json.remove(samples.question("model_admit"), ["now_ns"])
		with data.foedus.registers as samples.registers
}

test_a_clock_of_text_fails if {
	not clock.passes with input as samples.changed("model_admit", "/now_ns", "now")
		with data.foedus.registers as samples.registers
}

test_five_minutes_and_more_fails if {
	not clock.passes with input as samples.changed("model_admit", "/received_ns", 1763999699999999999)
		with data.foedus.registers as samples.registers
}
