"""docs/settings.md and what `init` writes name every setting of the classes, and no other."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from controlplane import settings as coordinator
from node_agent import settings as agent
from tools.settings import PAGE, TABLES, written
from treaty.settings import Key, keys_of

CLASSES = {"coordinator": coordinator.Settings, "agent": agent.Settings}
SECTIONS = dict(re.findall(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", PAGE.read_text(), re.DOTALL))
WRITTEN = {"coordinator": coordinator.settings_text(), "agent": agent.settings_text("FR", "treaty.example", "par-1")}


@pytest.mark.parametrize("program", CLASSES)
def test_the_page_has_every_key_of_the_class_and_no_other(program: str) -> None:
    shown = re.findall(r"^\| `(\w+)` \|", SECTIONS[program], re.MULTILINE)
    assert shown == [field.name for field in dataclasses.fields(CLASSES[program])]


def test_the_page_says_what_the_classes_say() -> None:
    page = PAGE.read_text()
    assert written(page) == page
    assert written(page.replace("`tally_seconds`", "`tally`")) == page


@pytest.mark.parametrize("program", CLASSES)
def test_every_key_says_what_it_is(program: str) -> None:
    for key in TABLES[program]:
        assert key.text.endswith("."), key.name


@pytest.mark.parametrize("program", CLASSES)
def test_what_init_writes_has_every_key_and_each_commented_one_is_its_default(program: str) -> None:
    text = WRITTEN[program]
    names = re.findall(r"^#?(\w+): ", text, re.MULTILINE)
    assert names == [field.name for field in dataclasses.fields(CLASSES[program])]
    uncommented = yaml.safe_load(re.sub(r"^#(?! )", "", text, flags=re.MULTILINE))
    for field in dataclasses.fields(CLASSES[program]):
        if field.default is not dataclasses.MISSING and field.name != "address_ranges":
            assert uncommented[field.name] == field.default


def test_a_coordinators_file_as_init_writes_it_changes_nothing() -> None:
    assert yaml.safe_load(WRITTEN["coordinator"]) is None


def test_a_key_without_a_default_has_none() -> None:
    @dataclasses.dataclass(frozen=True)
    class Small:
        name: str
        """Its name,
        in two lines."""
        seconds: int = 3
        """How long."""

    assert keys_of(Small) == (Key("name", None, "Its name, in two lines."), Key("seconds", 3, "How long."))
