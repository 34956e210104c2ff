# METADATA
# title: AGT-001 trust root
# description: >-
#   The certificate was issued by a trust root of this nation.
package foedus.treaty.checks.enrolment.root

import data.foedus.registers

code := "AGT-001"

points := {"agent.enrol"}

reads := {"subject.cert", "registers.nations.$nation.trust_roots"}

after := {"ENV-001"}

passes if input.subject.cert.root in registers.nations[input.nation].trust_roots
