"""What the nation does to a delta before it may become an update: clip, and write it in fixed point.

Done by the agent, outside the trainer's reach, on what `replies` believed. Clipping bounds how far one nation can move
the model and how much one round can carry; it is no privacy guarantee by itself: noise and its ledger are not here yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_agent.training.replies import TrainResult
from treaty.names import PartyCode
from treaty.update import UpdateHeader, UpdateSpec
from treaty.update_values import build_header, clip, l2_norm, quantise


@dataclass(frozen=True, slots=True)
class ClippedUpdate:
    """An update ready for the border's decision."""

    header: UpdateHeader
    chunks: tuple[NDArray[np.int32], ...]
    is_clipped: bool
    """Whether the delta was longer than the clip norm. Stays at home: the norm itself tells something."""


def clipped_update(result: TrainResult, spec: UpdateSpec, nation: PartyCode) -> ClippedUpdate:
    """Clip a believed result to the plan's norm and quantise it.

    Raises: InvalidInput: the delta is not of the plan's tensors (UPD-012).
    """
    clipped = clip(result.delta, spec.clip_norm_micro)
    chunks = tuple(quantise(clipped, spec))
    header = build_header(chunks, spec, nation=nation, examples=result.examples)
    return ClippedUpdate(header, chunks, l2_norm(clipped) < l2_norm(result.delta))
