package foedus.treaty.checks.enrolment.root_test

import data.foedus.treaty.checks.enrolment.root
import data.foedus.treaty.samples

test_a_complete_question_passes if root.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_cert_root_is_needed if {
	not root.passes with input as json.remove(samples.question("agent_enrol"), ["subject/cert/root"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not root.passes with input as samples.question("agent_enrol")
		with data.foedus.registers as {}
}

test_another_nations_root_fails if {
	not root.passes with input as samples.changed("agent_enrol", "/subject/cert/root", "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
		with data.foedus.registers as samples.registers
}
