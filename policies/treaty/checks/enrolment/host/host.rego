# METADATA
# title: AGT-002 the nation's host
# description: >-
#   The SPIFFE id is exactly of the nation's host, and is the one that is asked about.
package foedus.treaty.checks.enrolment.host

import data.foedus.registers

code := "AGT-002"

points := {"agent.enrol"}

reads := {"subject.spiffe", "subject.agent_id"}

after := {"ENV-001"}

passes if {
	input.subject.spiffe == input.subject.agent_id
	prefix := concat("", ["spiffe://", registers.nations[input.nation].spiffe_host, "/agent/"])
	startswith(input.subject.spiffe, prefix)
	regex.match(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, trim_prefix(input.subject.spiffe, prefix))
}
