package foedus.treaty.checks.egress.clip_test

import data.foedus.treaty.checks.egress.clip
import data.foedus.treaty.samples

test_a_complete_question_passes if clip.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_clip_norm_is_needed if {
	not clip.passes with input as json.remove(samples.question("egress_update"), ["update/clip_norm"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not clip.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_none_fails if {
	not clip.passes with input as samples.changed("egress_update", "/update/clip_norm", 0)
		with data.foedus.registers as samples.registers
}

test_too_large_fails if {
	not clip.passes with input as samples.changed("egress_update", "/update/clip_norm", 100000001)
		with data.foedus.registers as samples.registers
}

test_text_fails if {
	not clip.passes with input as samples.changed("egress_update", "/update/clip_norm", "1")
		with data.foedus.registers as samples.registers
}
