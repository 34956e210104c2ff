package foedus.treaty.checks.enrolment.address_test

import data.foedus.treaty.checks.enrolment.address
import data.foedus.treaty.samples

test_a_complete_question_passes if address.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_ip_is_needed if {
	not address.passes with input as json.remove(samples.question("agent_enrol"), ["subject/ip"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not address.passes with input as samples.question("agent_enrol")
		with data.foedus.registers as {}
}

test_elsewhere_fails if {
	not address.passes with input as samples.changed("agent_enrol", "/subject/ip", "203.0.113.9")
		with data.foedus.registers as samples.registers
}

test_no_address_fails if {
	not address.passes with input as samples.changed("agent_enrol", "/subject/ip", "par-1")
		with data.foedus.registers as samples.registers
}
