"""Every command line in the README, in the documents and in a help text is one that its program understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from controlplane.__main__ import app as coordinator
from controlplane.cli.program import app as operator
from node_agent.cli.program import app as agent

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "foedus": typer.main.get_command(operator),
    "foedus-agent": typer.main.get_command(agent),
    "foedus-coordinator": typer.main.get_command(coordinator),
}
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TYPED = re.compile(r"^\s*(foedus(?:-agent|-coordinator)?) (.*)$")
LEFT_OUT = "…"


def lines(text: str) -> Iterator[list[str]]:
    """The command lines of a text, continued ones joined, comments gone."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := TYPED.match(line):
            yield shlex.split(f"{found[1]} {found[2]}", comments=True)


def helps(command: click.Command) -> Iterator[str]:
    """The examples in the help of a command and of all below it."""
    yield (command.epilog or "").replace("Example:", "").replace("\b", "")
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below)


def written() -> list[list[str]]:
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    texts += [text for program in PROGRAMS.values() for text in helps(program)]
    return [words for text in texts for words in lines(text)]


def understood(words: list[str]) -> None:
    """Raises: AssertionError: the command or one of its options does not exist, or it takes no such argument."""
    command, rest = PROGRAMS[words[0]], words[1:]
    context = click.Context(command)
    while isinstance(command, click.Group):
        rest = without_options(command, rest, words)
        found = command.get_command(context, rest[0])
        assert found is not None, f"no such command: {shlex.join(words)}"
        command, rest = found, rest[1:]
    positional = without_options(command, rest, words)
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if LEFT_OUT in rest:
        return
    assert len(positional) <= len(arguments) or any(one.nargs != 1 for one in arguments), shlex.join(words)
    assert len(positional) >= sum(one.required for one in arguments), shlex.join(words)
    for option in command.params:
        if isinstance(option, click.Option) and option.required:
            assert set(option.opts) & set(rest), f"{option.opts[0]} is required: {shlex.join(words)}"


def without_options(command: click.Command, rest: list[str], words: list[str]) -> list[str]:
    """What is left of `rest` once the options of `command` and their values are gone; a group stops at its verb."""
    options = {
        name: one
        for one in command.params
        if isinstance(one, click.Option)
        for name in [*one.opts, *one.secondary_opts]
    }
    left: list[str] = []
    waiting = list(rest)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word in ("-h", "--help"):
            left.append(word)
            if isinstance(command, click.Group):
                return left + waiting
            continue
        assert word in options, f"no such option {word}: {shlex.join(words)}"
        if not options[word].is_flag and waiting:
            waiting.pop(0)
    return [word for word in left if word != LEFT_OUT]


@pytest.mark.parametrize("words", written(), ids=shlex.join)
def test_a_written_command_is_one_that_its_program_understands(words: list[str]) -> None:
    understood(words)


def test_every_verb_of_the_agent_has_an_example() -> None:
    without = [text for text in helps(PROGRAMS["foedus-agent"]) if not text]
    groups = {"delegate", "brake", "dataset", "policy", "log"}
    assert len(without) == len(groups)


WITHOUT_A_FORM = {
    # `-o` is where they write, and that file is what they make.
    *("foedus charter init", "foedus charter next", "foedus policy sign", "foedus policy add-signature"),
    # They change a file of the person's own, or run until they are stopped.
    *("foedus config set-context", "foedus config use-context", "foedus-coordinator serve", "foedus-agent run"),
    # JSON in any case.
    "foedus-coordinator recover",
    # They print the path of what they made, or nothing.
    *("foedus-agent init", "foedus-agent delegate person", "foedus-agent delegate agent", "foedus-agent revoke"),
    *("foedus-agent brake on", "foedus-agent brake off"),
}


def verbs(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for word in command.list_commands(context):
        below = command.get_command(context, word)
        assert below is not None
        yield from verbs(below, f"{name} {word}")


def test_every_verb_that_tells_something_takes_a_form() -> None:
    found = {
        name
        for program, command in PROGRAMS.items()
        for name, verb in verbs(command, program)
        if not any({"--output", "-o"} <= set(parameter.opts) for parameter in verb.params)
    }
    assert found == WITHOUT_A_FORM
