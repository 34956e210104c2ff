# METADATA
# title: AGT-006 agent version
# description: >-
#   The agent is at least as new as the treaty asks.
package foedus.treaty.checks.enrolment.version

import data.foedus.registers

code := "AGT-006"

points := {"agent.enrol"}

reads := {"subject.agent_version"}

after := set()

passes if {
	semver.is_valid(input.subject.agent_version)
	semver.compare(input.subject.agent_version, registers.limits.min_agent_version) >= 0
}
