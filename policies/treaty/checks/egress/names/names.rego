# METADATA
# title: EGR-002 tensor names
# description: >-
#   Every tensor has, to the last byte, a name of the agreed pattern that holds nothing forbidden.
package foedus.treaty.checks.egress.names

import data.foedus.registers

code := "EGR-002"

points := {"egress.update"}

reads := {"update.tensors"}

after := set()

passes if {
	is_array(input.update.tensors)
	is_array(registers.limits.tensor_forbidden)
	every tensor in input.update.tensors { agreed(tensor.name) }
}

agreed(name) if {
	regex.match(registers.limits.tensor_pattern, name)
	every part in registers.limits.tensor_forbidden { not contains(name, part) }
}
