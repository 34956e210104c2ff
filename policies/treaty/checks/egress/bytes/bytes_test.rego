package foedus.treaty.checks.egress.bytes_test

import data.foedus.treaty.checks.egress.bytes
import data.foedus.treaty.samples

test_a_complete_question_passes if bytes.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_bytes_is_needed if {
	not bytes.passes with input as json.remove(samples.question("egress_update"), ["update/bytes"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not bytes.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_one_too_many_fails if {
	not bytes.passes with input as samples.changed("egress_update", "/update/bytes", 67108865)
		with data.foedus.registers as samples.registers
}

test_none_fails if {
	not bytes.passes with input as samples.changed("egress_update", "/update/bytes", 0)
		with data.foedus.registers as samples.registers
}

test_text_fails if {
	not bytes.passes with input as samples.changed("egress_update", "/update/bytes", "1")
		with data.foedus.registers as samples.registers
}
