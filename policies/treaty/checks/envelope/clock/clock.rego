# METADATA
# title: ENV-003 clock
# description: >-
#   The clock of the decider is present and within 300 s of the receipt of the question.
package foedus.treaty.checks.envelope.clock

code := "ENV-003"

points := {"*"}

reads := {"now_ns", "received_ns"}

after := {"ENV-002"}

tolerance_ns := 300000000000

passes if {
	is_number(input.now_ns)
	is_number(input.received_ns)
	abs(input.now_ns - input.received_ns) <= tolerance_ns
}
