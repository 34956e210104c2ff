"""Of several words of one nation about one thing, which one counts?

Rules:
1. a no (a refusal, a withdrawal) counts over every yes that was recorded before it, whatever the signers' clocks said:
   the log's order is the only one that no clock bends;
2. a yes counts over a no if it was recorded later and does not say of itself that it was given earlier: a yes that was
   held up on its way is no change of mind;
3. among those that are left, the one that was recorded last; a word that is handed in again stands where it stood.

The nation itself acts on its own journal; what follows here is what operators plan with and are shown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Word:
    """`issued_at` by the signer's clock, which may be off by hours."""

    log_index: int
    issued_at: datetime
    is_no: bool


def counting(words: Collection[Word]) -> Word:
    """The one that counts, in whatever order they came here. `words` holds one at least.

    One pass over them: a nation may say as many as it likes, and its next word must not cost more than they do.
    """
    noes = [word for word in words if word.is_no]
    if not noes:
        return max(words, key=_place)
    last, latest = max(map(_place, noes)), max(no.issued_at for no in noes)
    standing = [word for word in words if not word.is_no and word.log_index > last and word.issued_at >= latest]
    return max(standing or noes, key=_place)


def _place(word: Word) -> int:
    return word.log_index
