"""A model version on its way to the coordinator: described, built, signed, uploaded; a run's result made into one.

What the coordinator says of a base is content-addressed and checked again by every agent; here it only fills in what
the publisher left out (architecture, licence, the label that follows from it).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from controlplane.cli.client import Client
from controlplane.cli.terminal import Progress, say, size, transfer
from treaty import names, statement
from treaty.charter import Charter
from treaty.errors import InvalidInput, LimitExceeded, PreconditionFailed, TrustError, Unavailable
from treaty.keys import SigningKey
from treaty.label import Classification, Label, derived_label, label
from treaty.lineage import DatasetClass, Evaluation, Lineage
from treaty.manifest import MAX_MANIFEST_BYTES, Description, Manifest, parse_manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import Digest, KeyId
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource, find_condition, is_true
from treaty.resources.models import MODEL_READY, MODEL_VERSION, model_version_name
from treaty.resources.runs import FEDERATED_RUN, FederatedRunSpec, FederatedRunStatus
from treaty.statement import StatementKind
from treaty.strict_json import canonical, parse_object

IN_FLIGHT: Final = 8
"""Chunks on their way at once: at 230 ms round trip one at a time would be a sixth of the line."""
MAX_RESULT_BYTES: Final = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Draft:
    """What a publisher said of a version; empty fields follow from the base."""

    name: str
    version: str
    licence: str = ""
    classification: str = ""
    rel_to: tuple[str, ...] = ()
    architecture: str = ""
    base: str = ""
    datasets: tuple[str, ...] = ()


async def describe(client: Client, draft: Draft) -> Description:
    """The draft with what follows from its base. Raises: InvalidInput: something is neither said nor derived."""
    if not draft.base:
        return _described(draft, None, Lineage(datasets=_datasets(draft)))
    base = read_manifest(await client.manifest(draft.base), draft.base)
    return _described(draft, base, Lineage(parents=(base.digest,), datasets=_datasets(draft)))


async def adapter_of_run(
    client: Client, run: str, draft: Draft, keep: Path | None, stack: ExitStack
) -> tuple[Path, Description]:
    """A run's result as a folder (temporary unless `keep` is given) and its description.

    Raises: PreconditionFailed: the run has no result, or this installation cannot read arrays.
    """
    resource = narrowed(FEDERATED_RUN, await client.get(FEDERATED_RUN.name, names.resource_name(run)))
    base = read_manifest(await client.manifest(resource.spec.model), resource.spec.model)
    arrays = await _fetch_arrays(client, run)
    folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foedus-adapter-")))
    await asyncio.to_thread(_write_adapter, folder, resource.spec, arrays)
    lineage = Lineage(parents=(base.digest,), run=names.run_id(run), datasets=_datasets(draft))
    about = _described(replace(draft, base=resource.spec.model), base, lineage)
    return folder, replace(about, evaluations=evaluations(resource.status))


def evaluations(status: FederatedRunStatus) -> tuple[Evaluation, ...]:
    """What the run's last round measured in each nation: mean loss per answer token, in millionths of a nat."""
    if not status.rounds_done:
        return ()
    measured = sorted(status.rounds_done[-1].metrics, key=lambda entry: entry.nation)
    return tuple(
        Evaluation(f"heldout-loss-{entry.nation.lower()}", entry.values["heldout_loss_micro"], pairs)
        for entry in measured
        if "heldout_loss_micro" in entry.values and (pairs := entry.values.get("heldout_pairs", 0)) > 0
    )


async def publish(client: Client, folder: Path, about: Description, keys: Sequence[SigningKey]) -> AnyResource:
    """Build, sign, publish as a draft, upload what is missing. Idempotent.

    Raises: as `treaty.manifest_build` and the coordinator say.
    """
    manifest = await asyncio.to_thread(build, folder, about)
    predicate = parse_object(manifest.encoded, max_bytes=MAX_MANIFEST_BYTES)
    envelope = statement.sign(statement.document(StatementKind.MANIFEST, manifest.ref, predicate), keys)
    say(f"{manifest.ref} is {manifest.digest}, {size(manifest.total_bytes)}")
    await client.publish_model(envelope)
    missing = await client.missing(manifest.digest)
    await _upload(client, folder, manifest, missing)
    return await client.get(MODEL_VERSION.name, model_version_name(manifest.ref))


async def wait_ready(client: Client, version: AnyResource, seconds: int) -> AnyResource:
    """Wait until the version is Ready. Raises: Unavailable: it is not after `seconds`."""
    listing = await client.list(MODEL_VERSION.name)
    found = next((item for item in listing.items if item.name == version.name), version)
    if is_true(found.status.conditions, MODEL_READY):
        return found
    try:
        async with asyncio.timeout(seconds):
            async for _, changed in client.watch(MODEL_VERSION.name, listing.resource_version):
                if changed.name == version.name and is_true(changed.status.conditions, MODEL_READY):
                    return changed
    except TimeoutError:
        pass
    raise Unavailable(f"{version.name} is not Ready after {seconds} s", remedy=f"foedus describe model {version.name}")


def read_manifest(envelope: bytes, reference: str, digest: str = "") -> Manifest:
    """The manifest in an envelope that the coordinator answered for `reference`. Its signatures are not checked here.

    Raises: TrustError: it is another one than was asked for.
    """
    claimed = statement.unverified(envelope)
    if claimed.kind is not StatementKind.MANIFEST:
        raise TrustError(f"the coordinator answered with a {claimed.kind} instead of a manifest")
    manifest = parse_manifest(canonical(claimed.predicate))
    if reference not in (manifest.ref, manifest.digest):
        raise TrustError(f"the coordinator answered {manifest.ref} instead of {reference}")
    if digest and manifest.digest != names.digest(digest):
        raise TrustError(f"{manifest.ref} is {manifest.digest}, not what you were told", remedy="ask the publisher")
    return manifest


def verified(envelope: bytes, charter: Charter, reference: str) -> tuple[Manifest, frozenset[KeyId]]:
    """The manifest and who signed it, believed by the charter's publishers. Raises: BadSignature, TrustError."""
    signers = charter.publishers.verify(envelope, StatementKind.MANIFEST).signers
    return read_manifest(envelope, reference), signers


def say_what_is_missing(version: AnyResource) -> None:
    """Tell the publisher what a draft still waits for."""
    ready = find_condition(version.status.conditions, MODEL_READY)
    if ready is not None and not is_true(version.status.conditions, MODEL_READY):
        spec = narrowed(MODEL_VERSION, version).spec
        say(f"a draft: {ready.message}; the others sign: foedus model sign {spec.ref} --digest {spec.manifest_digest}")


def _described(draft: Draft, base: Manifest | None, lineage: Lineage) -> Description:
    architecture = draft.architecture or (base.about.architecture if base else "")
    licence = draft.licence or (base.about.licence if base else "")
    missing = [flag for flag, value in (("--architecture", architecture), ("--licence", licence)) if not value]
    if missing:
        raise InvalidInput(f"a version without a base needs {' and '.join(missing)}")
    return Description(
        name=draft.name,
        version=draft.version,
        base=base.digest if base else None,
        architecture=architecture,
        licence=licence,
        label=_label(draft, [base.about.label] if base else [], [found.label for found in lineage.datasets]),
        lineage=lineage,
    )


def _label(draft: Draft, parents: Sequence[Label], datasets: Sequence[Label]) -> Label:
    """What was said, over what follows from parents and datasets. Raises: InvalidInput: looser than that."""
    if not parents and not datasets:
        if not draft.classification:
            raise InvalidInput("a version without a base needs a label", remedy="pass --label and --rel-to")
        return label(_classification(draft.classification), draft.rel_to)
    floor = derived_label(parents, datasets)
    classification = _classification(draft.classification) if draft.classification else floor.classification
    chosen = label(classification, draft.rel_to or floor.rel_to)
    if not chosen.is_at_least(floor):
        raise InvalidInput(
            f"the label is looser than {floor.classification} REL TO {', '.join(floor.rel_to) or 'nobody'}, "
            "which follows from the base and the data",
            remedy="leave --label and --rel-to out",
        )
    return chosen


def _classification(text: str) -> Classification:
    try:
        return Classification(text)
    except ValueError:
        raise InvalidInput(
            f"{text[:32]!r} is no classification", remedy=f"one of {', '.join(Classification)}"
        ) from None


def _datasets(draft: Draft) -> tuple[DatasetClass, ...]:
    """`FR:restricted:EU,FR` as a class of data."""
    found = []
    for text in draft.datasets:
        parts = text.split(":")
        if len(parts) != 3:
            raise InvalidInput(f"{text[:80]!r} is no class of data", remedy="write it as FR:restricted:FR,DE")
        parties = [code.strip() for code in parts[2].split(",") if code.strip()]
        found.append(DatasetClass(names.nation_code(parts[0]), label(_classification(parts[1]), parties)))
    return tuple(sorted(found, key=lambda one: one.nation))


async def _fetch_arrays(client: Client, run: str) -> bytes:
    """The result's arrays. Other files of it (a state, a report) are not part of a version."""
    from treaty.adapter import ARRAYS_FILE

    arrays, path, total = bytearray(), "", 0
    async for named, piece in client.run_result(run):
        path = named or path
        total += len(piece)
        if total > MAX_RESULT_BYTES:
            raise LimitExceeded(f"the result of {run} has more than {MAX_RESULT_BYTES} bytes")
        if path == ARRAYS_FILE:
            arrays += piece
    if not arrays:
        raise PreconditionFailed(f"the result of {run} holds no arrays", remedy=f"foedus run status {run}")
    return bytes(arrays)


def _write_adapter(folder: Path, spec: FederatedRunSpec, arrays: bytes) -> None:
    """The files of base plus adapter, as agents serve them. Needs NumPy, which only some installations have."""
    from treaty.adapter import adapter_files, decode_arrays
    from treaty.recipe import LORA_SFT, parse_recipe

    recipe = parse_recipe({"recipe": LORA_SFT, "seed": spec.seed, **spec.recipe})
    try:
        files = adapter_files(recipe, decode_arrays(arrays))
    except ModuleNotFoundError as err:
        raise PreconditionFailed(
            "a run's arrays cannot be read without NumPy", remedy="pip install 'foedus[coordinator]'"
        ) from err
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


async def _upload(client: Client, folder: Path, manifest: Manifest, missing: frozenset[Digest]) -> None:
    """Send the missing chunks, several in flight; the first failure stops the others."""
    total = sum(length for chunk, length in manifest.chunk_bytes.items() if chunk in missing)
    if not missing:
        return
    slots = asyncio.Semaphore(IN_FLIGHT)
    with transfer(f"uploading {manifest.ref}", total) as progress:
        try:
            async with asyncio.TaskGroup() as group:
                chunks = chunks_of(folder, manifest)
                while (found := await asyncio.to_thread(next, chunks, None)) is not None:
                    if found[0] in missing:
                        await slots.acquire()
                        group.create_task(_send(client, manifest.digest, found, slots, progress))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None


async def _send(
    client: Client, manifest: Digest, chunk: tuple[Digest, bytes], slots: asyncio.Semaphore, progress: Progress
) -> None:
    try:
        await client.put_chunk(manifest, *chunk)
        progress.advance(len(chunk[1]))
    finally:
        slots.release()
