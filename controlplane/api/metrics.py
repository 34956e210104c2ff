"""What Prometheus sees of the coordinator. Labels are from closed sets: methods, codes, nations of the charter."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()
_P: Final = "foedus_coordinator_"


def _counter(name: str, says: str, *labels: str) -> Counter:
    return Counter(_P + name, says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(_P + name, says, labels, registry=REGISTRY)


CALLS: Final = _counter("calls", "Calls by method and outcome: OK, or a refusal's code", "method", "code")
CALL_SECONDS: Final = Histogram(
    _P + "call_seconds",
    "Duration of calls",
    ["method"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
    registry=REGISTRY,
)
CONNECTED: Final = _gauge("agents_connected", "Live agent streams by nation", "nation")
SERVED_BYTES: Final = _counter("artifact_bytes", "Artifact bytes sent, by nation", "nation")
UPDATE_BYTES: Final = _counter("update_bytes", "Update bytes received, by nation", "nation")
RECORD_SIZE: Final = _gauge("record_entries", "Entries of the record")
IS_HALTED: Final = _gauge("is_halted", "1 while the coordinator directs nothing")
