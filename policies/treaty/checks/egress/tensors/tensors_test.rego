package foedus.treaty.checks.egress.tensors_test

import data.foedus.treaty.checks.egress.tensors
import data.foedus.treaty.samples

test_a_complete_question_passes if tensors.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_tensors_is_needed if {
	not tensors.passes with input as json.remove(samples.question("egress_update"), ["update/tensors"])
		with data.foedus.registers as samples.registers
}

test_none_fails if {
	not tensors.passes with input as samples.changed("egress_update", "/update/tensors", [])
		with data.foedus.registers as samples.registers
}
