# METADATA
# title: AGT-004 not revoked
# description: >-
#   Neither the agent nor its root nor its serial number is on the list of revoked ones.
package foedus.treaty.checks.enrolment.revocation

import data.foedus.registers

code := "AGT-004"

points := {"agent.enrol"}

reads := {"subject.spiffe", "subject.cert", "registers.revoked"}

after := set()

passes if {
	is_array(registers.revoked)
	is_string(input.subject.spiffe)
	is_string(input.subject.cert.root)
	is_string(input.subject.cert.serial)
	every name in registers.revoked {
		name != input.subject.spiffe
		name != input.subject.cert.root
		name != input.subject.cert.serial
	}
}
