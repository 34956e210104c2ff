"""An author's own tools on our own policies: plain `opa test`, `opa fmt` and `opa check --strict`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import policies
from treaty.errors import NotFound
from treaty.policy import author
from treaty.policy.bundle import read_bundle

pytestmark = pytest.mark.opa


def opa(program: Path, *arguments: str | Path) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", policies.NAMES)
def test_a_policys_own_tests_pass_under_opa(opa_program: Path, name: str) -> None:
    results = json.loads(opa(opa_program, "test", "--format=json", policies.source(name), *policies.libraries(name)))
    assert results
    assert [result["name"] for result in results if result.get("fail")] == []


def test_policies_are_formatted_and_strict(opa_program: Path) -> None:
    folder = Path(policies.__file__).parent
    assert opa(opa_program, "fmt", "--list", folder) == ""
    for name in policies.NAMES:
        opa(opa_program, "check", "--strict", policies.source(name), *policies.libraries(name))
    opa(opa_program, "check", "--strict", folder / "opa")


def test_each_check_has_its_test_beside_it() -> None:
    rules = [path for path in policies.source("treaty").glob("checks/*/*/*.rego") if not path.stem.endswith("_test")]
    assert len(rules) >= 39
    assert [rule.name for rule in rules if not rule.with_name(f"{rule.stem}_test.rego").exists()] == []


def test_the_revision_is_the_authors_to_choose(opa_program: Path) -> None:
    built = author.build(policies.source("fr"), 7, opa=opa_program, libraries=policies.libraries("fr"))
    assert read_bundle(built).revision == 7


def test_a_folder_without_a_policy_is_refused(opa_program: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no data\.json in"):
        author.build(tmp_path, 1, opa=opa_program)


def test_an_opa_that_is_not_there_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(NotFound, match=r"no OPA found as 'no-such-opa'; install OPA"):
        author.find_opa("no-such-opa")


@pytest.mark.parametrize("name", policies.NAMES)
def test_a_bundle_is_one_that_opa_itself_reads(opa_program: Path, name: str) -> None:
    bundle = read_bundle(policies.compiled(name))
    query = f"data.foedus.{bundle.program.slot}.decision.revision"
    assert opa(opa_program, "eval", "--bundle", policies.compiled_path(name), "--format=raw", query).strip() == "1"
