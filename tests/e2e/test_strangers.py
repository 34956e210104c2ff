"""Agents that the charter does not know: told why at `join`, before any stream, and no coordinator hears of them."""

from __future__ import annotations

import pytest

from tests.e2e.treaty_world import DNS, DOMAIN, TreatyWorld
from treaty.exit_codes import ExitCode

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


@pytest.mark.parametrize(
    ("nation", "why"),
    [
        ("DE", "error: the charter names another root for DE than ours"),
        ("JP", "error: JP is not a nation of this charter"),
    ],
    ids=["self-made", "no party at all"],
)
def test_a_stranger_is_told_why_it_cannot_join(joined: TreatyWorld, nation: str, why: str) -> None:
    home = joined.root / f"stranger-{nation}"
    made = ("--root-dir", home / "root", "--nation", nation, "--domain", DOMAIN, "--agent", "own-1")
    joined.programs.run("foedus-agent", "--home", home / "home", "init", *made)
    where = [f"{DNS}:{port}" for port in joined.lines["DE"].ports]
    words = ("join", "--coordinator", where[0], "--reach", where[1], "--charter", joined.charter_digest)
    refused = joined.programs.refused("foedus-agent", "--home", home / "home", *words)
    assert refused.code == ExitCode.UNTRUSTED
    assert why in refused.err
    assert not (home / "home" / "membership.json").exists()
    known = joined.foedus("get", "nodeagents", "-o", "name").out
    assert "own-1" not in known


def test_an_agent_that_pins_another_charter_does_not_join(joined: TreatyWorld) -> None:
    home = joined.root / "stranger-pin"
    made = ("--root-dir", home / "root", "--nation", "DE", "--domain", DOMAIN, "--agent", "own-1")
    joined.programs.run("foedus-agent", "--home", home / "home", "init", *made)
    where = [f"{DNS}:{port}" for port in joined.lines["DE"].ports]
    words = ("join", "--coordinator", where[0], "--reach", where[1], "--charter", "sha256:" + "0" * 64)
    refused = joined.programs.refused("foedus-agent", "--home", home / "home", *words)
    assert refused.code == ExitCode.UNTRUSTED
    assert "not the pinned" in refused.err
