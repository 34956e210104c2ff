"""Tables for people: which columns a kind has, and rows of text laid out without lines, as kubectl lays them out.

Pure but for the width of the stream: the same resources at the same time give the same rows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, TextIO, cast

from controlplane.cli.terminal import PIPE_WIDTH, age, has_colour, size
from treaty.fields import timestamp_text
from treaty.resources.meta import AnyResource, ConditionStatus, find_condition
from treaty.resources.models import ModelVersionSpec, ModelVersionStatus, PolicyBundleSpec, PolicyBundleStatus
from treaty.resources.nations import DatasetSpec, FreezeWindowSpec, NationSpec, NodeAgentSpec, NodeAgentStatus
from treaty.resources.rollouts import ConsentRequestSpec, ConsentSpec, RolloutSpec, RolloutStatus
from treaty.resources.runs import FederatedRunSpec, FederatedRunStatus

SHORT_DIGEST: Final = len("sha256:") + 12


class Columns(NamedTuple):
    """Headers and cells of a kind; the last `wide` of them are shown with `-o wide` only."""

    headers: tuple[str, ...]
    cells: Callable[[AnyResource], tuple[str, ...]]
    wide: int = 0


def short(digest: str | None) -> str:
    """A digest that fits a column."""
    return digest[:SHORT_DIGEST] if digest else ""


def condition(resource: AnyResource, type_: str) -> str:
    """`True`, or why not: the condition's reason."""
    found = find_condition(resource.status.conditions, type_)
    if found is None:
        return "Unknown"
    return "True" if found.status is ConditionStatus.TRUE else found.reason


def _nation(resource: AnyResource) -> tuple[str, ...]:
    spec = cast("NationSpec", resource.spec)
    return spec.code, condition(resource, "Ready"), ",".join(spec.memberships)


def _agent(resource: AnyResource) -> tuple[str, ...]:
    spec, status = cast("NodeAgentSpec", resource.spec), cast("NodeAgentStatus", resource.status)
    revisions = ",".join(f"{held.authority}:{held.revision}" for held in status.policy_revisions)
    told = (spec.nation, condition(resource, "Accepted"), condition(resource, "Connected"))
    return (*told, short(status.serving_digest), revisions, spec.version, spec.spiffe_id)


def _model(resource: AnyResource) -> tuple[str, ...]:
    spec, status = cast("ModelVersionSpec", resource.spec), cast("ModelVersionStatus", resource.status)
    signed = f"{len(status.signatures)}/{status.threshold}"
    shape = "adapter" if spec.base_digest else "whole"
    told = (spec.ref, condition(resource, "Ready"), signed, size(status.bytes), shape)
    return (
        *told,
        spec.licence,
        f"{spec.label.classification} REL TO {','.join(spec.label.rel_to)}",
        spec.manifest_digest,
    )


def _rollout(resource: AnyResource) -> tuple[str, ...]:
    spec, status = cast("RolloutSpec", resource.spec), cast("RolloutStatus", resource.status)
    serving = sum(entry.state == "Serving" for entry in status.nations)
    nations = sum(len(wave.nations) for wave in spec.waves)
    wave = f"{min(status.current_wave + 1, len(spec.waves))}/{len(spec.waves)}"
    return spec.model, rollout_state(resource), wave, f"{serving}/{nations}", short(spec.fallback_digest)


def rollout_state(resource: AnyResource) -> str:
    """One word for a rollout: how it ended, or what it waits for."""
    return _state(resource, ("Succeeded", "Aborted"))


def run_state(resource: AnyResource) -> str:
    """One word for a run."""
    return _state(resource, ("Succeeded", "Cancelled"))


def _state(resource: AnyResource, endings: tuple[str, ...]) -> str:
    conditions = resource.status.conditions
    for ending in endings:
        found = find_condition(conditions, ending)
        if found is not None and found.status is ConditionStatus.TRUE:
            return ending
    progressing = find_condition(conditions, "Progressing")
    if progressing is not None:
        return progressing.reason
    ready = find_condition(conditions, "Ready")
    return ready.reason if ready is not None else "Pending"


def _run(resource: AnyResource) -> tuple[str, ...]:
    spec, status = cast("FederatedRunSpec", resource.spec), cast("FederatedRunStatus", resource.status)
    rounds = f"{len(status.rounds_done)}/{spec.rounds}"
    told = (spec.task.value, run_state(resource), rounds, str(len(status.cohort)), spec.purpose)
    return (*told, spec.model, short(status.result_arrays_digest))


def _policy(resource: AnyResource) -> tuple[str, ...]:
    spec, status = cast("PolicyBundleSpec", resource.spec), cast("PolicyBundleStatus", resource.status)
    vectors = f"{status.vectors_passed}/{status.vectors_passed + status.vectors_failed}"
    told = (spec.authority, str(spec.revision), condition(resource, "Ready"), vectors, str(len(status.in_force)))
    return (*told, spec.bundle_digest)


def _request(resource: AnyResource) -> tuple[str, ...]:
    spec = cast("ConsentRequestSpec", resource.spec)
    return spec.nation, spec.rollout, condition(resource, "Answered"), short(spec.subject_digest)


def _consent(resource: AnyResource) -> tuple[str, ...]:
    spec = cast("ConsentSpec", resource.spec)
    said = (spec.nation, spec.decision.value, condition(resource, "Accepted"))
    return (*said, short(spec.subject_digest), short(spec.fallback_digest), short(spec.key_id))


def _dataset(resource: AnyResource) -> tuple[str, ...]:
    spec = cast("DatasetSpec", resource.spec)
    told = (spec.nation, spec.dataset_id, ",".join(spec.purposes), spec.data_class, spec.size_bucket.value)
    return (*told, ",".join(spec.languages), short(spec.schema_digest))


def _freeze(resource: AnyResource) -> tuple[str, ...]:
    spec = cast("FreezeWindowSpec", resource.spec)
    ends = timestamp_text(spec.ends_at) if spec.ends_at else "open"
    return ",".join(spec.nations), timestamp_text(spec.starts_at), ends, spec.reason


COLUMNS: Final[Mapping[str, Columns]] = MappingProxyType(
    {
        "Nation": Columns(("CODE", "READY", "MEMBER OF"), _nation),
        "NodeAgent": Columns(
            ("NATION", "ACCEPTED", "CONNECTED", "SERVING", "POLICY", "VERSION", "SPIFFE ID"), _agent, wide=2
        ),
        "ModelVersion": Columns(
            ("MODEL", "READY", "SIGNED", "SIZE", "SHAPE", "LICENCE", "LABEL", "DIGEST"), _model, wide=3
        ),
        "Rollout": Columns(("MODEL", "STATE", "WAVE", "SERVING", "FALLBACK"), _rollout, wide=1),
        "FederatedRun": Columns(("TASK", "STATE", "ROUNDS", "NATIONS", "PURPOSE", "MODEL", "RESULT"), _run, wide=2),
        "PolicyBundle": Columns(("AUTHORITY", "REVISION", "READY", "VECTORS", "AGENTS", "DIGEST"), _policy, wide=1),
        "ConsentRequest": Columns(("NATION", "ROLLOUT", "ANSWERED", "SUBJECT"), _request),
        "Consent": Columns(("NATION", "ANSWER", "ACCEPTED", "SUBJECT", "FALLBACK", "KEY"), _consent, wide=1),
        "Dataset": Columns(("NATION", "DATASET", "PURPOSES", "CLASS", "SIZE", "LANGUAGES", "SCHEMA"), _dataset, wide=2),
        "FreezeWindow": Columns(("NATIONS", "FROM", "UNTIL", "REASON"), _freeze),
    }
)


def resource_rows(resources: Sequence[AnyResource], *, is_wide: bool, now: datetime) -> list[list[str]]:
    """Header and rows of resources of one kind; the header alone is left out where there are none."""
    if not resources:
        return []
    columns = COLUMNS[resources[0].kind]
    shown = len(columns.headers) - (0 if is_wide else columns.wide)
    rows = [["NAME", *columns.headers[:shown], "AGE"]]
    for resource in resources:
        created = age(resource.metadata.creation_timestamp, now)
        rows.append([resource.name, *columns.cells(resource)[:shown], created])
    return rows


def text_of(rows: Sequence[Sequence[str]], stream: TextIO, widths: Sequence[int] = ()) -> str:
    """Rows laid out in columns, the first one as header; `widths` are the least ones. No trailing spaces."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return ""
    is_terminal = stream.isatty()
    table = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 3, 0, 0))
    for place in range(len(rows[0])):
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=widths[place] if place < len(widths) else None)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    written = io.StringIO()
    width = None if is_terminal else PIPE_WIDTH
    Console(file=written, width=width, no_color=not has_colour(stream), legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip("\n").split("\n"))


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []


def pairs(lines: Sequence[tuple[str, str]]) -> str:
    """`Key id:  sha256:…` lines, values aligned; a value of several lines is indented below."""
    width = max((len(name) for name, _ in lines), default=0) + 2
    told = []
    for name, value in lines:
        first, *rest = value.rstrip("\n").split("\n")
        told += [f"{name + ':':<{width}}{first}".rstrip(), *(" " * width + line for line in rest)]
    return "\n".join(told)


def words(name: str) -> str:
    """`keyId` and `key_id` as `Key id`."""
    spaced = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: " " + found.group(1).lower(), name).replace("_", " ")
    return spaced[:1].upper() + spaced[1:]
