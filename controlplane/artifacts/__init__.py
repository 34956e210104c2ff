"""Bytes at the coordinator: chunks that agents may pull, and updates that nobody may."""
