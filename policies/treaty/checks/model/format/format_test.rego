package foedus.treaty.checks.model.format_test

import data.foedus.treaty.checks.model.format
import data.foedus.treaty.samples

test_a_complete_question_passes if format.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_model_format_is_needed if {
	not format.passes with input as json.remove(samples.question("model_admit"), ["model/format"])
		with data.foedus.registers as samples.registers
}

test_a_pickle_fails if {
	not format.passes with input as samples.changed("model_admit", "/model/format", "pickle")
		with data.foedus.registers as samples.registers
}
