"""An update that is ready to leave, kept on the disk until the coordinator has it.

    HOME/outgoing/<run>/<round>/{about.json,header.json,metrics.json,values.bin}

Rules:
1. it is complete on the disk before anybody is told of it, and appears by rename;
2. an agent killed between receipt and send finds it and sends the very same bytes: it does not train again;
3. it is good for one plan and one set of global arrays; anything else is dropped and made anew;
4. it goes when it was accepted, or when its run ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from treaty.durable import disk_errors, sync_directory, write_whole
from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import Digest, RunId
from treaty.strict_json import JsonObject, canonical, parse_object
from treaty.update import UpdateHeader, parse_header

_MAX_ABOUT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`metrics` are canonical bytes; `sandbox` the layers in which it was made."""

    plan: Digest
    header: UpdateHeader
    metrics: bytes
    sandbox: tuple[str, ...]
    values: Path

    @property
    def size_bytes(self) -> int:
        """What will leave: header, values and metrics."""
        return len(self.header.encoded) + self.header.value_bytes + len(self.metrics)

    def chunks(self) -> Iterator[bytes]:
        """The values, chunk by chunk, as the header lists them."""
        with disk_errors("reading an update"), self.values.open("rb") as file:
            for index in range(self.header.chunk_count):
                yield file.read(self.header.chunk_length(index))


class OutgoingFolder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(
        self, run: RunId, round_number: int, *, plan: Digest, header: UpdateHeader, metrics: bytes,
        sandbox: tuple[str, ...], chunks: Iterator[bytes],
    ) -> Outgoing:  # fmt: skip
        """Write an update, durable on return. What was there for this round is replaced."""
        folder = self._folder(run, round_number)
        fresh = folder.with_name(f".{folder.name}.{uuid4().hex}")
        about: JsonObject = {"plan": plan, "sandbox": list(sandbox)}
        with disk_errors("keeping an update"):
            fresh.mkdir(parents=True, mode=0o700)
            write_whole(fresh / "values.bin", b"".join(chunks))
            write_whole(fresh / "header.json", header.encoded)
            write_whole(fresh / "metrics.json", metrics)
            write_whole(fresh / "about.json", canonical(about))
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
            sync_directory(folder.parent)
        return Outgoing(plan, header, metrics, sandbox, folder / "values.bin")

    def kept(self, run: RunId, round_number: int, plan: Digest, arrays: Digest) -> Outgoing | None:
        """The update of this round for exactly this plan and these arrays, if one was finished."""
        folder = self._folder(run, round_number)
        if not folder.is_dir():
            return None
        try:
            with disk_errors("reading an update"):
                fields = Fields(parse_object((folder / "about.json").read_bytes(), max_bytes=_MAX_ABOUT_BYTES), "about")
                header = parse_header((folder / "header.json").read_bytes())
                metrics = (folder / "metrics.json").read_bytes()
            found = Outgoing(
                fields.digest("plan"), header, metrics, fields.texts("sandbox", max_items=16, max_chars=32),
                folder / "values.bin",
            )  # fmt: skip
            fields.done()
        except InvalidInput:
            return None
        is_right = (found.plan, header.base_digest) == (plan, arrays)
        return found if is_right and found.values.stat().st_size == header.value_bytes else None

    def drop(self, run: RunId, round_number: int) -> None:
        shutil.rmtree(self._folder(run, round_number), ignore_errors=True)

    def drop_run(self, run: RunId) -> None:
        shutil.rmtree(self._root / run, ignore_errors=True)

    def _folder(self, run: RunId, round_number: int) -> Path:
        return self._root / run / str(round_number)
