"""Which word of a nation counts, by the log's order and by what each says of its own time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from controlplane.domain.words import Word, counting

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def yes(log_index: int, minutes: int = 0) -> Word:
    return Word(log_index, NOON + timedelta(minutes=minutes), is_no=False)


def no(log_index: int, minutes: int = 0) -> Word:
    return Word(log_index, NOON + timedelta(minutes=minutes), is_no=True)


@pytest.mark.parametrize(
    ("counts", "others", "why"),
    [
        (yes(1), [], "a word alone"),
        (yes(2, -60), [yes(1)], "of two yeses the later entry, whatever the clocks say"),
        (no(2), [yes(1, 120)], "a no over a yes whose signer's clock is two hours ahead"),
        (no(2, -120), [yes(1)], "a no whose signer's clock is two hours behind"),
        (no(1), [yes(2, -1)], "a no over a yes that was given before it and held up on its way"),
        (yes(2), [no(1)], "a change of mind, also within a second"),
        (yes(4, 2), [yes(1), no(2, 1), yes(3)], "a change of mind beside a yes that was held up"),
        (no(2, -5), [no(1), yes(3, -3)], "the last no, where a yes is given after one and not after the other"),
    ],
)
def test_one_word_counts_in_whatever_order_they_come(counts: Word, others: list[Word], why: str) -> None:
    for words in permutations([counts, *others]):
        assert counting(words) == counts, why
