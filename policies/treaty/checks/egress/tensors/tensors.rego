# METADATA
# title: EGR-003 at least one tensor
# description: >-
#   An update without tensors is not an update.
package foedus.treaty.checks.egress.tensors

code := "EGR-003"

points := {"egress.update"}

reads := {"update.tensors"}

after := set()

passes if {
	is_array(input.update.tensors)
	count(input.update.tensors) > 0
}
