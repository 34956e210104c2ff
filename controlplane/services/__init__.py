"""Verbs on the coordinator's resources: async, no protobuf, no SQL."""
