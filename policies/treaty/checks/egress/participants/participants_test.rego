package foedus.treaty.checks.egress.participants_test

import data.foedus.treaty.checks.egress.participants
import data.foedus.treaty.samples

test_a_complete_question_passes if participants.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_round_participants_is_needed if {
	not participants.passes with input as json.remove(samples.question("egress_update"), ["round/participants"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not participants.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_alone_fails if {
	not participants.passes with input as samples.changed("egress_update", "/round/participants", 1)
		with data.foedus.registers as samples.registers
}

test_text_fails if {
	not participants.passes with input as samples.changed("egress_update", "/round/participants", "9")
		with data.foedus.registers as samples.registers
}
