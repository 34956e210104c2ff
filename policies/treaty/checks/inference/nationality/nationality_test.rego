package foedus.treaty.checks.inference.nationality_test

import data.foedus.treaty.checks.inference.nationality
import data.foedus.treaty.samples

test_a_complete_question_passes if nationality.passes with input as samples.question("infer_purpose")
	with data.foedus.registers as samples.registers

test_subject_nationality_is_needed if {
	not nationality.passes with input as json.remove(samples.question("infer_purpose"), ["subject/nationality"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not nationality.passes with input as samples.question("infer_purpose")
		with data.foedus.registers as {}
}

test_outside_rel_to_fails if {
	not nationality.passes with input as samples.changed("infer_purpose", "/label", {"classification": "restricted", "rel_to": ["DE"]})
		with data.foedus.registers as samples.registers
}
