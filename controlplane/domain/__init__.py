"""Pure: transition tables and planners. No clock, no I/O, no await."""
