"""Each round's sum, computed again from the receipted updates, where they still are.

`DIR` is the coordinator's spool (`runs/<run>/<round>/<NATION>.update`). An update counts as the receipted one by its
header's digest; the sum's digest must then be the one that the coordinator signed. Updates are deleted by the retention
rule: what is gone is `not recomputable`, never passed as recomputed. NumPy is needed for this alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from treaty.audit import RoundSaid
from treaty.errors import FoedusError, NotFound, PreconditionFailed
from treaty.names import Digest


class Outcome(StrEnum):
    RECOMPUTED = "recomputed"
    DIFFERS = "differs"
    GONE = "not recomputable"
    NO_SUM = "no sum"
    """An evaluation: nothing was aggregated."""


@dataclass(frozen=True, slots=True)
class SumCheck:
    """What came of one round; `why` where it is not `recomputed`."""

    said: RoundSaid
    outcome: Outcome
    why: str = ""


def recompute_rounds(rounds: Sequence[RoundSaid], updates: Path | None) -> list[SumCheck]:
    """One check a round, in the record's order."""
    return [_check(said, updates) for said in rounds]


def _check(said: RoundSaid, updates: Path | None) -> SumCheck:
    if said.aggregate is None:
        return SumCheck(said, Outcome.NO_SUM)
    if updates is None:
        return SumCheck(said, Outcome.GONE, "no --updates given")
    folder = updates / "runs" / said.run / str(said.round)
    if not folder.is_dir():
        folder = updates / said.run / str(said.round)
    paths = [folder / f"{contribution.nation}.update" for contribution in said.contributions]
    missing = [path.stem for path in paths if not path.is_file()]
    if missing:
        return SumCheck(said, Outcome.GONE, f"the updates of {', '.join(missing)} are gone")
    return _compare(said, paths)


def _compare(said: RoundSaid, paths: Sequence[Path]) -> SumCheck:
    try:
        found, digests = _sum(paths)
    except FoedusError as err:
        return SumCheck(said, Outcome.DIFFERS, err.message)
    for contribution in said.contributions:
        if digests[contribution.nation] != contribution.update:
            return SumCheck(said, Outcome.DIFFERS, f"the update of {contribution.nation} is not the receipted one")
    if found != said.aggregate:
        return SumCheck(said, Outcome.DIFFERS, f"the updates sum to {found}")
    return SumCheck(said, Outcome.RECOMPUTED)


def _sum(paths: Sequence[Path]) -> tuple[Digest, dict[str, Digest]]:
    try:
        from controlplane.federation.aggregate import recompute
        from controlplane.federation.spool_reader import SpoolReader
    except ModuleNotFoundError as err:
        raise PreconditionFailed("sums need NumPy", remedy="pip install 'foedus[coordinator]'") from err
    digests: dict[str, Digest] = {}
    for path in paths:
        with SpoolReader(path) as reader:
            if reader.header.nation != path.stem:
                raise NotFound(f"{path.name} is an update of {reader.header.nation}")
            digests[path.stem] = reader.header.digest
    return recompute(paths), digests
