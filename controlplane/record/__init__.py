"""The coordinator's record on disk: a durable, append-only Merkle log with the statements beside it.

`framing` says what a segment's bytes mean and which of them are whole, `segment` is one such file, `tile_files` lays
out what anyone may read, `log_files` is the log, `group_commit` its asynchronous front. None of them knows protobuf,
SQL or gRPC, nor what a statement says or who may read it.
"""

from controlplane.record.group_commit import GroupCommit
from controlplane.record.log_files import LogFiles

__all__ = ["GroupCommit", "LogFiles"]
