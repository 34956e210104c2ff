# METADATA
# title: EGR-010 basis for the transfer
# description: >-
#   A nation under the GDPR sends only where there is a basis: within the EEA (art. 44), or where an adequacy decision in force covers this kind of recipient (art. 45).
package foedus.treaty.checks.egress.transfer

import data.foedus.registers

code := "EGR-010"

points := {"egress.update"}

reads := {"destination.nation", "destination.kind", "now_ns"}

after := {"ENV-001"}

home := registers.nations[input.nation]

there := registers.nations[input.destination.nation]

passes if {
	home.gdpr == false
	there
}

passes if there.transfer == "eea"

passes if {
	there.transfer == "adequate"
	in_force
	input.destination.kind in there.adequacy_covers
}

# A decision without an end date is in force until the register says otherwise.
in_force if object.get(there, "adequacy_until_ns", input.now_ns + 1) > input.now_ns
