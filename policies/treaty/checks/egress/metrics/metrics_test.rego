package foedus.treaty.checks.egress.metrics_test

import data.foedus.treaty.checks.egress.metrics
import data.foedus.treaty.samples

test_a_complete_question_passes if metrics.passes with input as samples.question("egress_update")
	with data.foedus.registers as samples.registers

test_update_metrics_is_needed if {
	not metrics.passes with input as json.remove(samples.question("egress_update"), ["update/metrics"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not metrics.passes with input as samples.question("egress_update")
		with data.foedus.registers as {}
}

test_an_unlisted_metric_fails if {
	not metrics.passes with input as samples.changed("egress_update", "/update/metrics/0", "first_sentence")
		with data.foedus.registers as samples.registers
}
