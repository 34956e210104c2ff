package foedus.treaty.checks.enrolment.expiry_test

import data.foedus.treaty.checks.enrolment.expiry
import data.foedus.treaty.samples

test_a_complete_question_passes if expiry.passes with input as samples.question("agent_enrol")
	with data.foedus.registers as samples.registers

test_subject_cert_not_after_ns_is_needed if {
	not expiry.passes with input as json.remove(samples.question("agent_enrol"), ["subject/cert/not_after_ns"])
		with data.foedus.registers as samples.registers
}

test_over_fails if {
	not expiry.passes with input as samples.changed("agent_enrol", "/subject/cert/not_after_ns", 1764000000000000000)
		with data.foedus.registers as samples.registers
}
