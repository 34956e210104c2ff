"""The one door to Flower: every name of it that we use, and the process-global identity that its messages need.

Flower 1.41 reads its telemetry switches when it is imported and takes run, task and node ids of a `Message` from a
global, so there is one worker process per run and this module is imported there alone. `adopt_identity` is called once,
before the first message. Nothing else in this repository imports `flwr`.
"""

from __future__ import annotations

import hashlib
import logging
import os

# Before the first import of flwr, which reads them once: nothing of a run is told to anyone outside the treaty.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from treaty.errors import PreconditionFailed
from treaty.names import RunId

__all__ = [
    "FLOWER_STRATEGIES",
    "AggregationError",
    "Array",
    "ArrayRecord",
    "ConfigRecord",
    "Grid",
    "InconsistentMessageReplies",
    "Message",
    "MessageType",
    "MetricRecord",
    "RecordDict",
    "Run",
    "Strategy",
    "adopt_identity",
    "require_identity",
]

FLOWER_STRATEGIES: dict[str, type[Strategy]] = {
    kind.__name__: kind
    for kind in (
        FedAvg,
        FedProx,
        FedAvgM,
        FedAdagrad,
        FedAdam,
        FedYogi,
        FedMedian,
        FedTrimmedAvg,
        Krum,
        MultiKrum,
        Bulyan,
    )
}

COORDINATOR_NODE = 1
"""Flower's node id of whoever sends instructions; the cohort's ids start above it."""

# Its strategies announce every step at INFO on stderr; what an operator must know is logged by the worker.
logging.getLogger("flwr").setLevel(logging.ERROR)


def adopt_identity(run_id: RunId) -> None:
    """Make this process the worker of run `run_id` in Flower's eyes. Idempotent for the same run.

    Raises: PreconditionFailed: the process already works for another run.
    """
    # Flower numbers runs: 63 bits of the name's hash, so that a restarted worker has the same number.
    number = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big") >> 1
    if _adopted_number() not in (None, number):
        raise PreconditionFailed("this process is the worker of another run", remedy="start one worker process per run")
    TaskIdentity.run_id = number
    TaskIdentity.task_id = number
    TaskIdentity.node_id = COORDINATOR_NODE


def require_identity() -> None:
    """Check that this process is some run's worker. Raises PreconditionFailed."""
    if _adopted_number() is None:
        raise PreconditionFailed("this process is no run's worker", remedy="call adopt_identity first")


def _adopted_number() -> int | None:
    # The property raises where nothing was set; the attribute behind it does not.
    number: int | None = vars(TaskIdentity)["_run_id"]
    return number
