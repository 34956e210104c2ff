"""Progress on its way out is spaced, and the newest wins."""

from __future__ import annotations

from collections.abc import Callable

from node_agent.ports import ProgressReport, RoundStage
from node_agent.progress import SPACING_SECONDS, ProgressLine
from treaty.names import run_id


def report(run: str, stage: RoundStage) -> ProgressReport:
    return ProgressReport(run_id(run), 1, stage, 0, 0)


class Turns:
    """`Later` whose time passes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == SPACING_SECONDS
        self.waiting.append(call)

    def pass_once(self) -> None:
        self.waiting.pop(0)()


def test_the_first_word_leaves_at_once_and_only_the_newest_of_each_run_follows() -> None:
    said: list[ProgressReport] = []
    turns = Turns()
    line = ProgressLine(said.append, turns)
    line.tell(report("one", RoundStage.PULLING))
    assert [each.stage for each in said] == [RoundStage.PULLING]
    line.tell(report("one", RoundStage.TRAINING))
    line.tell(report("two", RoundStage.PULLING))
    line.tell(report("one", RoundStage.DONE))
    assert len(said) == 1
    turns.pass_once()
    assert {(each.run, each.stage) for each in said[1:]} == {("one", RoundStage.DONE), ("two", RoundStage.PULLING)}


def test_after_a_silence_the_next_word_leaves_at_once_again_and_no_turn_is_left_running() -> None:
    said: list[ProgressReport] = []
    turns = Turns()
    line = ProgressLine(said.append, turns)
    line.tell(report("one", RoundStage.PULLING))
    turns.pass_once()
    assert turns.waiting == []
    line.tell(report("one", RoundStage.SENDING))
    assert [each.stage for each in said] == [RoundStage.PULLING, RoundStage.SENDING]
