# METADATA
# title: ROL-003 no freeze
# description: >-
#   No freeze window `[from, to)` of this nation is open, unless the nation returns to its fallback.
package foedus.treaty.checks.rollout.freeze

import data.foedus.registers

code := "ROL-003"

points := {"rollout.deploy"}

reads := {"now_ns"}

after := {"ENV-003"}

passes if {
	is_number(input.now_ns)
	is_array(registers.freezes)
	every window in registers.freezes { outside(window) }
}

passes if {
	is_number(input.now_ns)
	is_string(input.model.fallback_version)
	input.model.version == input.model.fallback_version
}

outside(window) if input.now_ns < window.from_ns

outside(window) if input.now_ns >= window.to_ns

outside(window) if {
	is_array(window.nations)
	every nation in window.nations { nation != input.nation }
}
