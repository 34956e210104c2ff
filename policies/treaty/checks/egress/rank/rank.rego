# METADATA
# title: EGR-008 rank
# description: >-
#   The rank of every adapter, the first dimension of `lora_A.weight`, is within the bound: a larger one can hold more of the data.
package foedus.treaty.checks.egress.rank

import data.foedus.registers

code := "EGR-008"

points := {"egress.update"}

reads := {"update.tensors"}

after := set()

passes if {
	is_array(input.update.tensors)
	every tensor in input.update.tensors { within_rank(tensor) }
}

within_rank(tensor) if {
	is_string(tensor.name)
	not endswith(tensor.name, "lora_A.weight")
}

within_rank(tensor) if {
	endswith(tensor.name, "lora_A.weight")
	is_number(tensor.shape[0])
	tensor.shape[0] <= registers.limits.max_rank
}
