"""What the demo takes from gettext catalogues, and that a finished folder needs nobody."""

from __future__ import annotations

import json
from pathlib import Path

from examples.demo import prepare

CATALOGUE = """
msgid "Please enter a valid date."
msgstr "Saisissez une date valide."

msgid "Save"
msgstr "Enregistrer"

#, fuzzy
msgid "This one is not settled yet"
msgstr "Peut-être"

msgid "One object was deleted"
msgid_plural "Many objects were deleted"
msgstr[0] "Un objet"
msgstr[1] "Des objets"

msgid "Not translated at all"
msgstr ""

#~ msgid "This one is out of use"
#~ msgstr "Abandonné"

msgid "  Another valid sentence  "
msgstr "Une autre phrase"
"""


def packages(root: Path) -> Path:
    for app in ("a", "b"):
        for locale, _ in prepare.NATIONS.values():
            folder = root / app / "locale" / locale / "LC_MESSAGES"
            folder.mkdir(parents=True)
            (folder / "django.po").write_text(CATALOGUE, encoding="utf-8")
    return root


def test_only_settled_singular_sentences_are_taken_each_once(tmp_path: Path) -> None:
    counts = prepare.write_pairs(packages(tmp_path / "packages"), tmp_path / "data")
    assert counts == dict.fromkeys(prepare.NATIONS, 2)
    lines = (tmp_path / "data" / "FR.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source": "Please enter a valid date.", "target": "Saisissez une date valide."},
        {"source": "Another valid sentence", "target": "Une autre phrase"},
    ]


def test_a_finished_folder_is_left_alone_and_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    fetched: list[Path] = []

    def fetching(target: Path) -> None:
        fetched.append(packages(target))

    def prepared() -> prepare.Prepared:
        return prepare.prepare(tmp_path, fetching=fetching, converting=_model)

    assert prepared() == prepared()
    assert len(fetched) == 1
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
    prepared()
    assert len(fetched) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "prepared.json"]


def _model(_packages: Path, target: Path) -> None:
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"weights")
