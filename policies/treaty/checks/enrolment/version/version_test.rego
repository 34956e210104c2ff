package foedus.treaty.checks.enrolment.version_test

import data.foedus.treaty.checks.enrolment.version
import data.foedus.treaty.samples

test_a_complete_question_passes if version.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_agent_version_is_needed if {
	not version.passes with input as json.remove(samples.question("agent_enrol"), ["subject/agent_version"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not version.passes with input as samples.question("agent_enrol")
		with data.foedus.registers as {}
}

test_too_old_fails if {
	not version.passes with input as samples.changed("agent_enrol", "/subject/agent_version", "0.0.9")
		with data.foedus.registers as samples.registers
}

test_no_version_fails if {
	not version.passes with input as samples.changed("agent_enrol", "/subject/agent_version", "new")
		with data.foedus.registers as samples.registers
}
