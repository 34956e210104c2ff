package foedus.treaty.checks.egress.rank_test

import data.foedus.treaty.checks.egress.rank
import data.foedus.treaty.samples

test_a_complete_question_passes if rank.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_tensors_is_needed if {
	not rank.passes with input as json.remove(samples.question("egress_update"), ["update/tensors"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not rank.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_too_large_fails if {
	not rank.passes with input as samples.changed("egress_update", "/update/tensors/0/shape/0", 65)
		with data.foedus.registers as samples.registers
}

test_no_shape_fails if {
	not rank.passes with input as samples.changed("egress_update", "/update/tensors/0/shape", [])
		with data.foedus.registers as samples.registers
}
