package foedus.treaty.checks.enrolment.revocation_test

import data.foedus.treaty.checks.enrolment.revocation
import data.foedus.treaty.samples

test_a_complete_question_passes if revocation.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_cert_serial_is_needed if {
	not revocation.passes with input as json.remove(samples.question("agent_enrol"), ["subject/cert/serial"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not revocation.passes with input as samples.question("agent_enrol")
		with data.foedus.registers as {}
}

test_the_agent_fails if {
	not revocation.passes with input as samples.changed("agent_enrol", "/subject/spiffe", "spiffe://fr.foedus.example/agent/lost")
		with data.foedus.registers as samples.registers
}

test_the_root_fails if {
	not revocation.passes with input as samples.changed("agent_enrol", "/subject/cert/root", "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc")
		with data.foedus.registers as samples.registers
}

test_the_serial_fails if {
	not revocation.passes with input as samples.changed("agent_enrol", "/subject/cert/serial", "0bad")
		with data.foedus.registers as samples.registers
}
