package foedus.treaty.checks.rollout.region_test

import data.foedus.treaty.checks.rollout.region
import data.foedus.treaty.samples

test_a_complete_question_passes if region.passes with input as samples.question("rollout_deploy")
	with data.foedus.registers as samples.registers

test_env_region_is_needed if {
	not region.passes with input as json.remove(samples.question("rollout_deploy"), ["env/region"])
		with data.foedus.registers as samples.registers
}

test_registers_are_needed if {
	not region.passes with input as samples.question("rollout_deploy")
		with data.foedus.registers as {}
}

test_a_foreign_region_fails if {
	not region.passes with input as samples.changed("rollout_deploy", "/env/region", "us-1")
		with data.foedus.registers as samples.registers
}
