"""Flower's `Grid` over our transport: an instruction goes out to the cohort, validated replies come back.

What travels between nations and how is the business of the `exchange` that the worker injects: it sends directives,
waits until quorum or deadline, drops what is late and validates updates. This grid turns Flower's messages into one
instruction, and the replies into messages: senders that were asked, once each, exact arrays, a positive integer weight,
integer metrics, ordered by sender, so the strategy's arithmetic does not depend on who was fastest.

Messages are exchanged a round at a time; Flower's push and pull are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from controlplane.federation.arrays import to_record
from controlplane.federation.compat import (
    COORDINATOR_NODE,
    Grid,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
    Run,
)
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.update_layout import TensorSpec
from treaty.update_values import Delta

WEIGHT_KEY = "num-examples"
_ARRAYS, _CONFIG, _METRICS = "arrays", "config", "metrics"


class Kind(StrEnum):
    TRAIN = MessageType.TRAIN
    EVALUATE = MessageType.EVALUATE


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the strategy asks of the cohort. The global arrays are pulled as chunks and do not travel with it."""

    round: int
    kind: Kind
    cohort: tuple[str, ...]
    config: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Reply:
    """One validated answer. `arrays` is empty for an evaluation."""

    sender: str
    examples: int
    arrays: Delta = field(default_factory=dict)
    metrics: Mapping[str, int] = field(default_factory=dict)


Exchange = Callable[[Instruction], Sequence[Reply]]


class TreatyGrid(Grid):  # type: ignore[misc]  # flwr's types are not followed
    """A grid of the nations of one cohort. Node ids are positions in the sorted cohort, above the coordinator's."""

    def __init__(self, cohort: Iterable[str], tensors: Sequence[TensorSpec], exchange: Exchange) -> None:
        self._senders = {COORDINATOR_NODE + 1 + index: sender for index, sender in enumerate(sorted(set(cohort)))}
        self._tensors = tensors
        self._exchange = exchange
        self._run: Run | None = None

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        if self._run is None:
            raise PreconditionFailed("this grid was given no Flower run")
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content=content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        return list(self._senders)

    def push_messages(self, messages: Iterable[Message]) -> NoReturn:
        raise PreconditionFailed("this grid exchanges whole rounds", remedy="use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> NoReturn:
        raise PreconditionFailed("this grid exchanges whole rounds", remedy="use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Exchange one round. A list: strategies walk over it more than once. The deadline is the exchange's.

        Raises: InvalidInput: a reply from somebody who was not asked, a second one, or one with other records.
        """
        by_sender = {self._senders[message.metadata.dst_node_id]: message for message in messages}
        if not by_sender:
            return []
        first = next(iter(by_sender.values()))
        config = dict(first.content[_CONFIG])
        instruction = Instruction(
            round=config.pop("server-round"),
            kind=Kind(first.metadata.message_type),
            cohort=tuple(sorted(by_sender)),
            config=config,
        )
        replies = sorted(self._exchange(instruction), key=lambda reply: reply.sender)
        if len({reply.sender for reply in replies}) != len(replies):
            raise InvalidInput("a sender replied twice")
        return [self._message(reply, by_sender, instruction.kind) for reply in replies]

    def _message(self, reply: Reply, by_sender: Mapping[str, Message], kind: Kind) -> Message:
        if reply.sender not in by_sender:
            raise InvalidInput("a reply came from somebody who was not asked")
        if type(reply.examples) is not int or reply.examples < 1:
            raise InvalidInput("a reply's weight is not a positive integer", code="UPD-005")
        if any(type(value) is not int for value in reply.metrics.values()) or WEIGHT_KEY in reply.metrics:
            raise InvalidInput("a reply's metrics are not integers of their own names")
        metrics = MetricRecord({**reply.metrics, WEIGHT_KEY: reply.examples})
        records = {_METRICS: metrics}
        if kind is Kind.TRAIN:
            records[_ARRAYS] = to_record(reply.arrays, self._tensors)
        elif reply.arrays:
            raise InvalidInput("an evaluation's reply has arrays")
        return Message(RecordDict(records), reply_to=by_sender[reply.sender])
