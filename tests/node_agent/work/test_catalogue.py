"""What a nation registers of its datasets, what is refused, and what of it crosses the border."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from node_agent import catalogue
from node_agent.catalogue import Registration, size_bucket
from tests.node_agent.work.nation import FR, PURPOSE, FixedClock, make_world
from treaty.dataset import sign_notice, verify_notice
from treaty.errors import BadSignature, InvalidInput, NotFound
from treaty.keys import new_signing_key
from treaty.resources.nations import SizeBucket

GOOD = '{"source": "a house", "target": "une maison"}\n'


def registration(path: Path, **changes: object) -> Registration:
    fields: dict[str, object] = {"name": "texts", "path": path, "purposes": [PURPOSE], "target_language": "fr"}
    return Registration(**{**fields, "data_class": "administrative-text", **changes})  # type: ignore[arg-type]


def test_a_notice_says_class_and_size_bucket_and_neither_path_nor_count(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.dataset(count=40)
    (dataset,) = catalogue.datasets(world.journal)
    assert dataset.records == 40
    envelope = sign_notice(dataset.notice(FR), world.nation.key)
    notice, _ = verify_notice(envelope, world.nation.delegations(), FixedClock().now())
    assert (notice.spec.nation, notice.spec.dataset_id, notice.spec.purposes) == (FR, "catalogues", (PURPOSE,))
    assert (notice.spec.size_bucket, notice.spec.languages) == (SizeBucket.UNDER_100, ("en", "fr"))
    said = str(notice.statement().predicate)
    assert str(tmp_path) not in said
    assert "40" not in said.replace(notice.spec.schema_digest, "")
    with pytest.raises(BadSignature):
        verify_notice(sign_notice(notice, new_signing_key()), world.nation.delegations(), FixedClock().now())
    world.journal.close()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GOOD + '{"source": "b"}\n', "line 2 of the dataset is not a pair"),
        ('{"source": "b", "target": "c", "name": "x"}\n', "line 1 of the dataset is not a pair"),
        ("not json\n", "line 1 of the dataset is not a pair"),
        ("\n", "holds no pair"),
    ],
)
def test_a_file_that_is_not_pairs_is_refused_by_its_line(tmp_path: Path, content: str, told: str) -> None:
    world = make_world(tmp_path)
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=told):
        catalogue.add(world.journal, registration(path))
    assert catalogue.datasets(world.journal) == ()
    world.journal.close()


def test_a_description_out_of_bounds_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    path = tmp_path / "texts.jsonl"
    path.write_text(GOOD)
    with pytest.raises(InvalidInput, match="'xx' is no language that prompts know"):
        catalogue.add(world.journal, registration(path, target_language="xx"))
    with pytest.raises(InvalidInput, match="a dataset has 1 to 32 purposes"):
        catalogue.add(world.journal, registration(path, purposes=[]))
    with pytest.raises(NotFound, match="no file"):
        catalogue.add(world.journal, registration(tmp_path / "nothing"))
    with pytest.raises(NotFound, match="no dataset 'texts' is registered"):
        catalogue.remove(world.journal, "texts")
    world.journal.close()


def test_the_first_dataset_by_name_serves_a_purpose_until_it_is_withdrawn(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.dataset("b")
    world.dataset("a")
    assert (found := catalogue.for_purpose(world.journal, PURPOSE)) is not None
    assert found.name == "a"
    withdrawn = catalogue.remove(world.journal, "a")
    assert (withdrawn.path, withdrawn.is_withdrawn) == ("", True)
    assert (left := catalogue.for_purpose(world.journal, PURPOSE)) is not None
    assert left.name == "b"
    assert catalogue.for_purpose(world.journal, "law-enforcement-analytics") is None
    world.journal.close()


@pytest.mark.parametrize(
    ("records", "bucket"),
    [(1, SizeBucket.UNDER_100), (99, SizeBucket.UNDER_100), (100, SizeBucket.UNDER_1_000), (10**6, SizeBucket.LARGER)],
)
def test_sizes_are_told_coarsely(records: int, bucket: SizeBucket) -> None:
    assert size_bucket(records) is bucket


async def test_the_coordinator_is_told_once_of_each_change(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def submit(envelope: bytes) -> int:
        told.put_nowait(envelope)
        return 1

    world.border.submit = submit  # type: ignore[method-assign]
    world.dataset()
    await world.work.start()
    async with asyncio.timeout(10):
        first, _ = verify_notice(await told.get(), world.nation.delegations(), world.clock.now())
        catalogue.remove(world.journal, "catalogues")
        second, _ = verify_notice(await told.get(), world.nation.delegations(), world.clock.now())
    assert (first.is_withdrawn, second.is_withdrawn) == (False, True)
    assert told.empty()
    await world.work.stop()
    world.journal.close()
