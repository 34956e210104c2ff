# METADATA
# title: AGT-003 not expired
# description: >-
#   The certificate has not expired.
package foedus.treaty.checks.enrolment.expiry

code := "AGT-003"

points := {"agent.enrol"}

reads := {"subject.cert", "now_ns"}

after := set()

passes if {
	is_number(input.now_ns)
	is_number(input.subject.cert.not_after_ns)
	input.subject.cert.not_after_ns > input.now_ns
}
