"""How this coordinator runs: HOME/settings.yaml, read once at the start, whole, strictly.

A key that is not known here is an error, and so is one of another type: a misspelt limit must not be a silent default.
What anchors trust (parties, keys, CAs) is not a setting: it is the charter. The environment is not read.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from treaty.errors import InvalidInput

MAX_SETTINGS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting has a default that suits one machine."""

    grpc_address: str = "127.0.0.1:0"
    """Mutual TLS: Session, Artifacts, Updates, Operator. Port 0: a free one, written to HOME/endpoints.json."""

    reach_address: str = "127.0.0.1:0"
    """Reach: server-authenticated TLS, a port of its own so that it can be limited apart."""

    metrics_address: str = "127.0.0.1:0"
    """Prometheus over plain HTTP: loopback, or an address that only the cluster reaches."""

    health_address: str = "127.0.0.1:0"
    """gRPC health for probes, without TLS: loopback, or an address that only the cluster reaches."""

    store_url: str = ""
    """SQLAlchemy URL of the store; empty: SQLite in HOME/state.db."""

    server_certificate_seconds: int = 8 * 3600
    """Life of the server's certificate; it is replaced at half of it, without a restart. 60 to 7776000."""

    connection_age_seconds: int = 3600
    """Connections are closed gently after this, so that peers come back with fresh certificates. 10
    to 86400."""

    trust_refresh_seconds: int = 2
    """How often revocations and charters written by another process are noticed: live streams are cut within 5 s.
    1 to 4."""

    max_draft_bytes: int = 64 * 1024**3
    """Bytes of model versions that one publisher may have uploading, as their manifests state them. 1048576 to
    1125899906842624."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        for name in ("grpc_address", "reach_address", "metrics_address", "health_address"):
            host, _, port = getattr(self, name).rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:
                raise InvalidInput(f"setting {name} is not host:port")
        for name, low, high in (
            ("server_certificate_seconds", 60, 90 * 86400),
            ("connection_age_seconds", 10, 86400),
            ("trust_refresh_seconds", 1, 4),
            ("max_draft_bytes", 1024**2, 1024**5),
        ):
            if not low <= getattr(self, name) <= high:
                raise InvalidInput(f"setting {name} is not between {low} and {high}")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidInput("setting log_level is not debug, info, warning or error")


def settings_text() -> str:
    """What `init` writes: every key, commented out."""
    from treaty.settings import keys_of, settings_yaml  # reads source text, which serving need not

    return settings_yaml("Settings of this coordinator.", keys_of(Settings), {})


def read_settings(path: Path) -> Settings:
    """The settings in `path`; the defaults where there is no such file. Raises InvalidInput, naming the key."""
    if not path.exists():
        return Settings()
    import yaml  # a tenth of a second that a coordinator without settings need not spend

    text = path.read_bytes()
    if len(text) > MAX_SETTINGS_BYTES:
        raise InvalidInput(f"{path} has more than {MAX_SETTINGS_BYTES} bytes")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as err:
        raise InvalidInput(f"{path} is not YAML") from err
    return _settings(document, path)


def _settings(document: object, path: Path) -> Settings:
    if document is None:
        return Settings()
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a mapping of settings")
    known = {field.name: field for field in dataclasses.fields(Settings)}
    for key, value in document.items():
        if key not in known:
            raise InvalidInput(f"{path} has an unknown setting {key!r}", remedy=f"known are {', '.join(known)}")
        wanted = type(known[key].default)
        if type(value) is not wanted:
            raise InvalidInput(f"{path}: {key} is not a {wanted.__name__}")
    return Settings(**document)
