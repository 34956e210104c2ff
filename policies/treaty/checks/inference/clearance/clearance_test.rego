package foedus.treaty.checks.inference.clearance_test

import data.foedus.treaty.checks.inference.clearance
import data.foedus.treaty.samples

test_a_complete_question_passes if clearance.passes with input as samples.question("infer_purpose")
	with data.foedus.registers as samples.registers

test_subject_clearance_is_needed if {
	not clearance.passes with input as json.remove(samples.question("infer_purpose"), ["subject/clearance"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not clearance.passes with input as samples.question("infer_purpose")
		with data.foedus.registers as {}
}

test_too_low_fails if {
	not clearance.passes with input as samples.changed("infer_purpose", "/label/classification", "restricted")
		with data.foedus.registers as samples.registers
}
