"""Act 5: each admin registers the national texts, with a canary among them; only metadata crosses the border."""

from __future__ import annotations

import json

from examples.demo import canary
from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import CODES, PURPOSE, REFUSED_PURPOSE, NationSettings

DATASET = "administration-texts"
WAIT_SECONDS = 20


def register_datasets(cast: Cast) -> None:
    """DE registers its texts for both purposes too: it is its overlay that will say no to one of them."""
    with cast.telling.step("5. each nation registers its texts; a canary sentence is planted in each"):
        cast.each_nation(lambda nation: _register(cast, nation))
        cast.programs.wait_until(
            "the coordinator lists five datasets", lambda: len(_listed(cast)) >= len(CODES), WAIT_SECONDS
        )
        for found in _listed(cast):
            spec = found["spec"]
            cast.telling.say(f"the coordinator knows of {spec['nation']}: {spec['dataClass']}, {spec['sizeBucket']}")
        if str(cast.run_dir) in json.dumps(_listed(cast)):
            raise DemoFailed("a dataset's path is known to the coordinator")


def _register(cast: Cast, nation: NationSettings) -> None:
    code = nation.code
    records = canary.plant(cast.prepared / "data" / f"{code}.jsonl", cast.data(code), cast.mark, code)
    cast.findings.nations[code].records = records
    cast.findings.canaries_planted += 1
    purposes = [word for purpose in (PURPOSE, REFUSED_PURPOSE) for word in ("--purpose", purpose)]
    done = cast.agent(
        code, "dataset", "add", DATASET, cast.data(code), *purposes, "--language", nation.locale,
        "--class", "administrative-text",
    )  # fmt: skip
    cast.telling.say(f"{code}: {done.err.strip()}")


def _listed(cast: Cast) -> list[dict[str, dict[str, str]]]:
    found = json.loads(cast.foedus("get", "datasets", "-o", "json").out)
    items = found["items"] if isinstance(found, dict) else found
    return list(items)
