"""Speed and worth, measured: each target beside its peer or its floor in the same run. Never part of the tests."""
