package foedus.treaty.checks.model.digest_test

import data.foedus.treaty.checks.model.digest
import data.foedus.treaty.samples

test_a_complete_question_passes if digest.passes with input as samples.question("model_admit")
	with data.foedus.registers as samples.registers

test_model_digest_is_needed if {
	not digest.passes with input as json.remove(samples.question("model_admit"), ["model/digest"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not digest.passes with input as samples.question("model_admit")
		with data.foedus.registers as {}
}

test_another_digest_fails if {
	not digest.passes with input as samples.changed("model_admit", "/model/digest", "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")
		with data.foedus.registers as samples.registers
}
