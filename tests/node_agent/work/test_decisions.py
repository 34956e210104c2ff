"""What a nation makes of an allow that obliges it to something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.node_agent.work.nation import FR, PURPOSE, World, governed, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import PolicyDenied
from treaty.manifest_build import build
from treaty.names import PartyCode, RunId
from treaty.policy import asks
from treaty.policy.answer import Verdict
from treaty.policy.asks import Undertaking
from treaty.policy.questions import Ask, Observed, ObservedRound

TWO = Observed(round=ObservedRound(participants=2))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await governed(make_world(tmp_path))
    yield world
    await world.work.stop()
    world.journal.close()


def ask_of(world: World) -> Ask:
    folder = model_folder(world.root / "base", safetensors({"w": ("F32", [2], bytes(8))}))
    base = build(folder, description("1.0.0"))
    run = Undertaking(RunId("run-1"), PURPOSE, (PartyCode("DE"), FR), PartyCode("EU"), PartyCode("BE"))
    return asks.dataset_use(FR, base, run, "catalogues")


async def test_an_obligation_that_is_not_met_here_is_a_no(world: World) -> None:
    decisions, ask = world.work._decisions, ask_of(world)
    ordinary = await decisions.decide(ask, TWO)
    assert (ordinary.verdict, ordinary.obligations) == (Verdict.ALLOW, ())
    assert ask.round is not None
    charging = replace(ask, round=replace(ask.round, epsilon_micro=1))
    decided = await decisions.decide(charging, TWO)
    assert (decided.verdict, decided.codes, decided.obligations) == (Verdict.DENY, ("OBLIGATION_UNKNOWN",), ())
    with pytest.raises(PolicyDenied, match="OBLIGATION_UNKNOWN"):
        decided.require_allow()
    logged = world.journal.entries("decisions")[-1].body["decision"]
    assert logged == decided.to_json()
