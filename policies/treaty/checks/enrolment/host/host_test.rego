package foedus.treaty.checks.enrolment.host_test

import data.foedus.treaty.checks.enrolment.host
import data.foedus.treaty.samples

test_a_complete_question_passes if host.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_spiffe_is_needed if {
	not host.passes with input as json.remove(samples.question("agent_enrol"), ["subject/spiffe"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not host.passes with input as samples.question("agent_enrol")
		with data.foedus.registers as {}
}

test_another_nations_host_fails if {
	not host.passes with input as samples.changed("agent_enrol", "/subject/spiffe", "spiffe://de.foedus.example/agent/par-1")
		with data.foedus.registers as samples.registers
}

test_a_deeper_path_fails if {
	not host.passes with input as samples.changed("agent_enrol", "/subject/spiffe", "spiffe://fr.foedus.example/agent/par-1/x")
		with data.foedus.registers as samples.registers
}

test_upper_case_fails if {
	not host.passes with input as samples.changed("agent_enrol", "/subject/spiffe", "spiffe://FR.foedus.example/agent/par-1")
		with data.foedus.registers as samples.registers
}

test_another_agent_fails if {
	not host.passes with input as samples.changed("agent_enrol", "/subject/agent_id", "par-2")
		with data.foedus.registers as samples.registers
}
