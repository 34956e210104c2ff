package foedus.treaty.checks.egress.raw_test

import data.foedus.treaty.checks.egress.raw
import data.foedus.treaty.samples

test_a_complete_question_passes if raw.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_raw_is_needed if {
	not raw.passes with input as json.remove(samples.question("egress_update"), ["update/raw"])
		with data.foedus.registers as samples.registers
}

test_raw_data_fails if {
	not raw.passes with input as samples.changed("egress_update", "/update/raw", true)
		with data.foedus.registers as samples.registers
}

test_the_word_false_fails if {
	not raw.passes with input as samples.changed("egress_update", "/update/raw", "false")
		with data.foedus.registers as samples.registers
}

test_null_fails if {
	not raw.passes with input as samples.changed("egress_update", "/update/raw", null)
		with data.foedus.registers as samples.registers
}
