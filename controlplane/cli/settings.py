"""Which coordinator, as whom: from flags, the environment, or a context of the configuration file, in this order.

`~/.config/foedus/config.yaml` (or `FOEDUS_CONFIG`) holds contexts by name and which one is current. It holds paths of
keys, never keys. An unknown field of it is an error: a misspelt one must not silently mean another coordinator.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from treaty.errors import InvalidInput, NotFound, PreconditionFailed

CONFIG_VARIABLE: Final = "FOEDUS_CONFIG"
_MAX_CONFIG_BYTES: Final = 256 * 1024
_SET_ONE: Final = "foedus config set-context NAME --coordinator HOST:PORT --cert FILE --key FILE --ca FILE"


@dataclass(frozen=True, slots=True)
class Context:
    """One coordinator and one identity there; paths as text. An empty field is not set."""

    coordinator: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""
    charter: str = ""
    """The charter that its digest was compared for; what `audit verify` and `model verify` believe."""

    def over(self, other: Context) -> Context:
        """This context, with what it leaves open taken from `other`."""
        return Context(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration file."""

    contexts: Mapping[str, Context] = field(default_factory=dict)
    current: str = ""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the program's own flags said, kept for the command; its trace id is in every call and every receipt."""

    flags: Context = Context()
    context: str = ""
    is_verbose: bool = False
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))

    def settings(self) -> Context:
        """The flags over the chosen context. Raises: NotFound: no context of that name."""
        config = read_config(config_path())
        name = self.context or config.current
        if not name:
            return self.flags
        if name not in config.contexts:
            raise NotFound(f"there is no context {name!r}", remedy="foedus config get-contexts")
        return self.flags.over(config.contexts[name])

    def connection(self) -> Context:
        """Settings with everything that a call needs. Raises: PreconditionFailed: something is not set."""
        settings = self.settings()
        missing = [name for name in ("coordinator", "cert", "key", "ca") if not getattr(settings, name)]
        if missing:
            raise PreconditionFailed(
                f"no coordinator to talk to: {', '.join(missing)} not set",
                remedy=f"set FOEDUS_{missing[0].upper()}, or: {_SET_ONE}",
            )
        return settings

    def charter_path(self, given: Path | None) -> Path:
        """The charter to believe: as given, or the context's. Raises: PreconditionFailed: neither."""
        path = given or (Path(found) if (found := self.settings().charter) else None)
        if path is None:
            raise PreconditionFailed("no charter to believe", remedy="pass --charter FILE or set FOEDUS_CHARTER")
        return path


def silence_grpc() -> None:
    """Let gRPC print nothing of its own beside our one line. To be called before anything imports it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def config_path() -> Path:
    """Where the configuration lies."""
    if chosen := os.environ.get(CONFIG_VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "foedus" / "config.yaml"


def read_config(path: Path) -> Config:
    """The configuration in `path`; an empty one where there is no such file. Raises: InvalidInput."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Config()
    import yaml

    if len(data) > _MAX_CONFIG_BYTES:
        raise InvalidInput(f"{path} has more than {_MAX_CONFIG_BYTES} bytes")
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError) as err:
        raise InvalidInput(f"{path} is not YAML") from err
    return _config({} if document is None else document, path)


def write_config(path: Path, config: Config) -> None:
    """Replace the configuration in one step; readable by its owner alone."""
    import yaml

    contexts = {name: _written(context) for name, context in sorted(config.contexts.items())}
    text = yaml.safe_dump({"contexts": contexts, "current-context": config.current}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o600)
    partial.replace(path)


def with_context(config: Config, name: str, context: Context) -> Config:
    """`config` with the context set; the first one becomes the current one."""
    return replace(config, contexts={**config.contexts, name: context}, current=config.current or name)


def _written(context: Context) -> dict[str, str]:
    return {f.name: value for f in fields(context) if (value := getattr(context, f.name))}


def _config(document: object, path: Path) -> Config:
    if not isinstance(document, dict) or not set(document) <= {"contexts", "current-context"}:
        raise InvalidInput(f"{path} holds something other than contexts and current-context")
    contexts, current = document.get("contexts") or {}, document.get("current-context") or ""
    if not isinstance(contexts, dict) or not isinstance(current, str):
        raise InvalidInput(f"{path} is not a mapping of contexts by name")
    return Config({str(name): _context(value, str(name), path) for name, value in contexts.items()}, current)


def _context(value: object, name: str, path: Path) -> Context:
    known = {f.name for f in fields(Context)}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidInput(f"{path}: context {name!r} is not a mapping of texts")
    unknown = sorted(set(value) - known)
    if unknown:
        raise InvalidInput(f"{path}: context {name!r} has an unknown field {unknown[0]!r}")
    return Context(**value)
