package foedus.treaty.checks.egress.transfer_test

import data.foedus.treaty.checks.egress.transfer
import data.foedus.treaty.samples

test_a_complete_question_passes if transfer.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_destination_nation_is_needed if {
	not transfer.passes with input as json.remove(samples.question("egress_update"), ["destination/nation"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not transfer.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_no_basis_fails if {
	not transfer.passes with input as samples.changed("egress_update", "/destination/nation", "US")
		with data.foedus.registers as samples.registers
}

test_a_kind_that_adequacy_does_not_cover_fails if {
	not transfer.passes with input as samples.changed("egress_update", "/destination/nation", "JP")
		with data.foedus.registers as samples.registers
}
