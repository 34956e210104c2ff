"""How fast a stream is read."""

from __future__ import annotations

from controlplane.api.pace import BURST_MESSAGES, MESSAGES_PER_SECOND, Pace


def test_a_burst_is_read_at_once_and_what_follows_at_the_rate() -> None:
    pace = Pace()
    assert [pace.delay(100.0) for _ in range(BURST_MESSAGES)] == [0.0] * BURST_MESSAGES
    assert pace.delay(100.0) == 1 / MESSAGES_PER_SECOND
    assert pace.delay(100.0) == 2 / MESSAGES_PER_SECOND


def test_who_keeps_to_the_rate_never_waits() -> None:
    pace = Pace()
    moments = [second / MESSAGES_PER_SECOND for second in range(2 * BURST_MESSAGES)]
    assert sum(pace.delay(moment) for moment in moments) == 0.0


def test_a_bucket_holds_no_more_than_one_burst() -> None:
    pace = Pace()
    pace.delay(0.0)
    assert [pace.delay(1_000_000.0) for _ in range(BURST_MESSAGES)] == [0.0] * BURST_MESSAGES
    assert pace.delay(1_000_000.0) > 0
