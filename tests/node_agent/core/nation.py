"""A nation that has joined a treaty of two, with its home on disk, for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from node_agent import charters, enrol
from node_agent.agent import Foundation, SystemClock, lay
from node_agent.charters import Membership
from node_agent.home import Home
from tests.builders.charters import DOMAIN, CharterBuilder
from treaty.charter import Charter
from treaty.delegation import parse_descriptor
from treaty.names import PartyCode

FR = PartyCode("FR")
EXTRA = "metrics_address: ''\nhealth_address: ''\nreconnect_max_seconds: 1\n"


@dataclass
class Joined:
    """FR's home and the treaty around it."""

    home: Home
    root_dir: Path
    world: CharterBuilder
    charter: Charter
    envelope: bytes

    def join(self, coordinator: str, reach: str = "localhost:1") -> None:
        """Write down what `join` would, without a network."""
        charters.store(self.home, [self.envelope], [self.charter])
        charters.write_membership(self.home, Membership(coordinator, reach, self.charter.digest))

    def lay(self) -> Foundation:
        return lay(self.home, SystemClock())


def nation(folder: Path, *, settings: str = EXTRA) -> Joined:
    """FR as `init` makes it, in the charter of a fresh treaty."""
    home, root_dir = Home(folder / "fr"), folder / "root"
    enrol.init(home, root_dir, nation="FR", domain=DOMAIN, agent="par-1", now=datetime.now(UTC))
    with home.settings.open("a") as file:
        file.write(settings)
    world = CharterBuilder(issued_at=datetime.now(UTC).replace(microsecond=0))
    offered = parse_descriptor(home.descriptor.read_bytes()).nation
    assert offered is not None
    charter = world.charter()
    charter = replace(charter, nations=MappingProxyType({**charter.nations, FR: offered}))
    return Joined(home, root_dir, world, charter, world.signed(charter))
