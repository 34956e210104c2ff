"""What an admin may write into settings.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.settings import Sandbox, parse_settings, read_settings, settings_text
from treaty.errors import InvalidInput, NotFound

OWN: dict[object, object] = {"nation": "FR", "domain": "treaty.example", "agent": "par-1"}


def test_what_init_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(settings_text("FR", "treaty.example", "par-1"))
    settings = read_settings(path)
    assert (settings.nation, settings.agent, settings.sandbox) == ("FR", "par-1", Sandbox.REQUIRED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sandbx": "none"}, "unknown setting 'sandbx'"),
        ({"sandbox": "off"}, "'sandbox' is not one of required, none"),
        ({"tally_seconds": 0}, "'tally_seconds' is not an integer between 1 and 86400"),
        ({"tally_seconds": True}, "'tally_seconds' is not an integer"),
        ({"tap": 5}, "'tap' is not a text"),
        ({"nation": "fr"}, "is not a nation code"),
        ({"domain": "Treaty"}, "is not a treaty domain"),
        ({"agent": "Par 1"}, "is not an agent name"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[object, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_settings({**OWN, **change}, "settings.yaml")


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(InvalidInput, match="'agent' is missing"):
        parse_settings({"nation": "FR", "domain": "treaty.example"}, "settings.yaml")


def test_a_home_without_settings_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="run 'foedus-agent init' first"):
        read_settings(tmp_path / "settings.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "nation: " + "[" * 5000])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        read_settings(path)
