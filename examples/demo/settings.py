"""What the demo plays: nations, purposes, waves and the recipe. Figures and their sources are the project's own.

Everything that a step needs to know beforehand stands here; what it finds out goes to `findings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DOMAIN: Final = "treaty.example"
DNS: Final = "localhost"
COORDINATOR_PARTY: Final = "EU"
COORDINATOR_HOST: Final = "BE"
FOUNDERS: Final = ("EU", "NATO", "FR")
FOUNDERS_THRESHOLD: Final = 2
PUBLISHERS: Final = ("pub-1", "pub-2", "pub-3")
PUBLISHERS_THRESHOLD: Final = 2

PURPOSE: Final = "public-administration-translation"
REFUSED_PURPOSE: Final = "law-enforcement-analytics"
"""In the treaty's register and in four overlays, but not in that of DE."""

MODEL: Final = "smollm2"
LICENCE: Final = "Apache-2.0"
CLASSIFICATION: Final = "public"
REL_TO: Final = ("EU", "JP", "KR")


@dataclass(frozen=True, slots=True)
class NationSettings:
    """One nation: its language, its agent's name and the bodies that it belongs to."""

    code: str
    locale: str
    agent: str
    bodies: tuple[str, ...] = ()


NATIONS: Final = (
    NationSettings("FR", "fr", "par-1", ("EU", "NATO")),
    NationSettings("DE", "de", "ber-1", ("EU", "NATO")),
    NationSettings("IT", "it", "rom-1", ("EU", "NATO")),
    NationSettings("JP", "ja", "tyo-1"),
    NationSettings("KR", "ko", "sel-1"),
)
CODES: Final = tuple(nation.code for nation in NATIONS)
BODIES: Final = {"EU": ("DE", "FR", "IT"), "NATO": ("DE", "FR", "IT")}
WAITS_FOR_A_PERSON: Final = "JP"
HOSTILE: Final = "KR"
"""Its trainer is replaced by a hostile program for one run."""
COMPANION: Final = "IT"
"""Trains honestly beside the hostile one, since the treaty wants two participants."""

WAVES: Final = (("first", ("FR", "DE")), ("second", ("IT",)), ("third", ("JP", "KR")))

SEED: Final = 7
ROUNDS: Final = 2
RECIPE: Final[dict[str, object]] = {
    "rank": 8,
    "alpha": 16,
    "targets": "q_proj,v_proj",
    "steps": 8,
    "batch": 8,
    "learning_rate_micro": 3000,
    "sequence_tokens": 64,
    "precision": "float32",
    "prompt_template": "{source_language}: {source}\n{target_language}: {target}",
    "heldout_pairs": 64,
}
"""Of a plain process with these figures: perplexity at most half of before after two rounds in every nation."""
CLIP_NORM_MICRO: Final = 20_000_000
"""Above the norm of an honest update after 8 steps at 3e-3, so that clipping bounds liars and not learners."""

TINY_RECIPE: Final = {**RECIPE, "rank": 1, "steps": 1, "batch": 1, "heldout_pairs": 1}
"""For the hostile run: the honest companion should not take long."""
TINY_MINIMUMS: Final = {"min_heldout_pairs": 1, "min_examples_per_round": 1}
"""Settings of the two agents that take part in it; the others refuse so narrow a recipe."""

ROUND_DEADLINE_SECONDS: Final = 900
ROLLOUT_DEADLINE_SECONDS: Final = 600
MAX_PERPLEXITY_RATIO: Final = 0.5
"""What the demo must reach: held-out perplexity after two rounds, against before, in every nation."""
