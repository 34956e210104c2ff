# METADATA
# title: AGT-002 the nation's host
# description: >-
#   The SPIFFE id is exactly of the nation's host, and is, whole or by its name, the one that is asked about.
package foedus.treaty.checks.enrolment.host

import data.foedus.registers

code := "AGT-002"

points := {"agent.enrol"}

reads := {"subject.spiffe", "subject.agent_id", "registers.nations.$nation.spiffe_host"}

after := {"ENV-001"}

passes if {
	prefix := concat("", ["spiffe://", registers.nations[input.nation].spiffe_host, "/agent/"])
	startswith(input.subject.spiffe, prefix)
	name := trim_prefix(input.subject.spiffe, prefix)
	regex.match(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, name)
	input.subject.agent_id in {name, input.subject.spiffe}
}
