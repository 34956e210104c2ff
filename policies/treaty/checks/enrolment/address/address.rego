# METADATA
# title: AGT-005 the nation's address
# description: >-
#   The agent calls from one of the nation's ranges (IPv4 or IPv6).
package foedus.treaty.checks.enrolment.address

import data.foedus.registers

code := "AGT-005"

points := {"agent.enrol"}

reads := {"subject.ip", "registers.nations.$nation.cidrs"}

after := {"ENV-001"}

passes if {
	some range in registers.nations[input.nation].cidrs
	net.cidr_contains(range, input.subject.ip)
}
