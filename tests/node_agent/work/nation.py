"""A nation for the tests of its work: real journal, policies, shelf and children; a border that keeps what it gets."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import policies
from node_agent import bundles, catalogue
from node_agent.brake import JournalBrake
from node_agent.catalogue import Registration
from node_agent.directives import Deploy, Directive, Gates, LoadTreatyPolicy, Round
from node_agent.fetch import FetchCall
from node_agent.home import Home
from node_agent.journal import SqliteJournal
from node_agent.ports import Core, Permit, ProgressReport, RolloutReport, UpdateAccepted, UpdateOpening
from node_agent.settings import Settings
from node_agent.shelf import Shelf
from node_agent.work import Work, build
from tests.builders.charters import DOMAIN, NOW, CharterBuilder
from tests.builders.tiny_llama import write_pairs
from treaty import names, statement
from treaty.charter import Charter
from treaty.delegation import Delegation, Power, verify_delegation
from treaty.errors import Unavailable
from treaty.keys import SigningKey, new_signing_key, write_key
from treaty.manifest import Manifest
from treaty.manifest_build import chunks_of
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, RunId, digest_of
from treaty.policy import bundle as policy_bundle
from treaty.receipt import Receipt
from treaty.statement import StatementKind
from treaty.strict_json import parse
from treaty.wire.v1 import transfer_pb2

FR = PartyCode("FR")
HEALTH = Gates(("The capital of France is",), None, 0)
PURPOSE = "public-administration-translation"


@dataclass
class FixedClock:
    moment: datetime = NOW + timedelta(hours=1)

    def now(self) -> datetime:
        return self.moment


@dataclass
class TestNation:
    """`ports.Nation`: keys of its own, delegations by its root."""

    __test__ = False

    builder: CharterBuilder
    key: SigningKey = field(default_factory=new_signing_key)
    person: SigningKey = field(default_factory=new_signing_key)
    code: PartyCode = FR

    def __post_init__(self) -> None:
        self._charter = self.builder.charter()

    @property
    def agent_id(self) -> AgentId:
        return names.agent_id(self.code, DOMAIN, "par-1")

    def charter(self) -> Charter:
        return self._charter

    def delegations(self) -> Sequence[Delegation]:
        envelopes = (
            self.builder.agent_delegation(self.code, "par-1", self.key),
            self.builder.person_delegation(self.code, self.person, Power.CONSENT, Power.OVERLAY, Power.REVOKE),
        )
        return [verify_delegation(self._charter, envelope, NOW + timedelta(hours=1)) for envelope in envelopes]


@dataclass
class Sent:
    opening: UpdateOpening
    receipt: Receipt
    permit: Permit
    chunks: list[bytes]


@dataclass
class KeepingBorder:
    """`ports.Border` towards nobody. `is_away` makes what would wait raise Unavailable."""

    chunks: dict[Digest, bytes] = field(default_factory=dict)
    submitted: list[bytes] = field(default_factory=list)
    updates: list[Sent] = field(default_factory=list)
    results: list[tuple[bytes, Receipt, Permit]] = field(default_factory=list)
    refused: list[tuple[RunId, int, tuple[str, ...]]] = field(default_factory=list)
    fetched: list[Digest] = field(default_factory=list)
    is_away: bool = False
    before_fetch: Callable[[], None] = lambda: None

    async def send_update(
        self,
        opening: UpdateOpening,
        receipt: Receipt,
        permit: Permit,
        chunks: Iterable[bytes] | AsyncIterator[bytes],
    ) -> UpdateAccepted:
        assert isinstance(chunks, Iterable)
        self.updates.append(Sent(opening, receipt, permit, list(chunks)))
        if self.is_away:
            raise Unavailable("the coordinator is away")
        return UpdateAccepted(receipt.digest, len(self.updates), was_known=False)

    async def send_result(
        self, run: RunId, round_number: int, number: DirectiveNumber, metrics: bytes, receipt: Receipt, permit: Permit
    ) -> int:
        self.results.append((metrics, receipt, permit))
        return len(self.results)

    def refuse_round(self, run: RunId, round_number: int, number: DirectiveNumber, codes: Sequence[str]) -> None:
        self.refused.append((run, round_number, tuple(codes)))

    async def submit(self, envelope: bytes) -> int:
        self.submitted.append(envelope)
        return len(self.submitted)

    def fetch_calls(self) -> Sequence[FetchCall]:
        return (self._fetch,)

    def _fetch(self, request: transfer_pb2.FetchRequest) -> _Frames:
        self.before_fetch()
        wanted = [Digest(text) for text in request.chunk_digests]
        self.fetched.extend(wanted)
        return _Frames([self.chunks[chunk] for chunk in wanted])

    def kinds(self) -> list[StatementKind]:
        return [statement.unverified(envelope).kind for envelope in self.submitted]


@dataclass
class _Frames:
    frames: list[bytes]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for frame in self.frames:
            yield frame

    def cancel(self) -> bool:
        return True


@dataclass
class KeepingReports:
    """`ports.Reports`, remembered."""

    rollouts: list[RolloutReport] = field(default_factory=list)
    served: list[Digest | None] = field(default_factory=list)
    progressed: list[ProgressReport] = field(default_factory=list)
    on_shelf: tuple[Digest, ...] = ()
    revisions: tuple[int, int] = (0, 0)
    waits: dict[str, str] = field(default_factory=dict)
    on_rollout: Callable[[RolloutReport], None] = lambda _: None

    def rollout(self, report: RolloutReport) -> None:
        self.rollouts.append(report)
        self.on_rollout(report)

    def serving(self, digest: Digest | None) -> None:
        self.served.append(digest)

    def policies(self, *, treaty_revision: int, overlay_revision: int) -> None:
        self.revisions = (treaty_revision, overlay_revision)

    def held(self, digests: Sequence[Digest]) -> None:
        self.on_shelf = tuple(digests)

    def progress(self, report: ProgressReport) -> None:
        self.progressed.append(report)

    def waiting(self, subject: str, reason: str) -> None:
        self.waits[subject] = reason

    @property
    def states(self) -> list[str]:
        """The states that were reported, repetitions left out."""
        seen: list[str] = []
        for report in self.rollouts:
            if not seen or seen[-1] != report.state:
                seen.append(str(report.state))
        return seen


@dataclass
class World:
    """One nation with everything around it. `work` is what is tested."""

    root: Path
    nation: TestNation
    journal: SqliteJournal
    border: KeepingBorder
    reports: KeepingReports
    clock: FixedClock
    core: Core
    settings: Settings
    work: Work

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.core.folders.shelf, self.core.folders.staging)

    def restarted(self) -> World:
        """The same home in a new process's place. The former work must be stopped."""
        reports = KeepingReports()
        core = replace(self.core, reports=reports)
        return replace(self, core=core, reports=reports, work=build(core, self.settings))

    def publish(self, folder: Path, manifest: Manifest) -> bytes:
        """Have the coordinator hold a version's chunks; its manifest signed by two publishers."""
        self.border.chunks.update(chunks_of(folder, manifest))
        return self.sign_manifest(manifest)

    def sign_manifest(self, manifest: Manifest, signers: int = 2) -> bytes:
        predicate = parse(manifest.encoded, max_bytes=len(manifest.encoded), max_depth=8)
        assert isinstance(predicate, dict)
        document = statement.document(StatementKind.MANIFEST, manifest.ref, predicate)
        return statement.sign(document, self.nation.builder.publishers[:signers])

    def place(self, folder: Path, manifest: Manifest) -> None:
        """Put a version on the shelf as a finished pull does."""
        staged = self.shelf.staging_folder(manifest.digest)
        shutil.copytree(folder, staged / "files")
        (staged / "manifest.json").write_bytes(manifest.encoded)
        self.shelf.admit(manifest.digest)

    def overlay(self, name: str = "fr", revision: int = 1) -> None:
        """A person signs an overlay and the admin loads it."""
        packed = policies.compiled(name)
        envelope = policy_bundle.sign(packed, [self.nation.person], not_before=NOW, not_after=NOW + timedelta(days=9))
        offer = (self.journal, self.core.folders.policies, self.nation)
        bundles.offer_overlay(*offer, packed, envelope, self.clock.now())

    def treaty_bundle(self) -> tuple[bytes, bytes]:
        packed = policies.compiled("treaty")
        keys = self.nation.builder.policy[:1]
        return packed, policy_bundle.sign(packed, keys, not_before=NOW, not_after=NOW + timedelta(days=9))

    def dataset(self, name: str = "catalogues", *, purposes: Sequence[str] = (PURPOSE,), count: int = 40) -> None:
        path = write_pairs(self.root / f"{name}.jsonl", count)
        catalogue.add(self.journal, Registration(name, path, purposes, "fr", "administrative-text"))


def make_world(root: Path, code: PartyCode = FR) -> World:
    """A home with keys and journal, nothing in force yet."""
    home = Home(root / "agent")
    home.make()
    clock = FixedClock()
    nation = TestNation(CharterBuilder(nations=(FR, PartyCode("DE"), PartyCode("JP"))), code=code)
    write_key(home.agent_key.parent, "agent", nation.key)
    journal = SqliteJournal(home.journal, clock)
    border, reports = KeepingBorder(), KeepingReports()
    core = Core(nation, journal, border, reports, JournalBrake(journal), clock, home.folders())
    settings = Settings(
        code,
        DOMAIN,
        "par-1",
        address_ranges="127.0.0.0/8",
        slots_directory=str(root / "slots"),
        trainer_slots=1,
        min_heldout_pairs=8,
        min_examples_per_round=16,
    )
    return World(root, nation, journal, border, reports, clock, core, settings, build(core, settings))


async def governed(world: World) -> World:
    """Both policies in force, and a dataset for the usual purpose."""
    world.overlay(world.nation.code.lower())
    world.dataset()
    await world.work.start()
    packed, envelope = world.treaty_bundle()
    await world.work.load_policy(directive(1, load := bundles_action(packed, envelope)), load)
    return world


def bundles_action(packed: bytes, envelope: bytes) -> LoadTreatyPolicy:
    return LoadTreatyPolicy(1, packed, envelope)


def directive(counter: int, action: Deploy | Round | LoadTreatyPolicy) -> Directive:
    return Directive(DirectiveNumber(1, counter), digest_of(str(counter).encode()), "0" * 32, action)


def deploy_action(
    manifest: Manifest,
    envelopes: Sequence[bytes],
    *,
    rollout: str = "first",
    fallback: Digest | None = None,
    gates: Gates = HEALTH,
    deadline_seconds: int = 300,
) -> Deploy:
    return Deploy(
        rollout=rollout,
        manifest_digest=manifest.digest,
        manifests=tuple(envelopes),
        fallback=fallback,
        deadline_seconds=deadline_seconds,
        gates=gates,
        purpose="treaty-operation",
    )
