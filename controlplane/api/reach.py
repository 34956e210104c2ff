"""Reach: what an agent may ask before mutual TLS lets it speak. It reveals nothing that is not already the caller's.

Rules:
1. each address has a bucket of calls that refills; the table of buckets is bounded, and one that was forgotten is full;
2. a nonce is good once, for 60 seconds; the table of nonces is bounded, and the oldest make way;
3. a diagnosis is given to whoever holds the certificate's key, and says by code what the gate would say: nothing
   about anybody else.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.api.messages_out import timestamp
from controlplane.api.metrics import CALLS
from controlplane.services.enrolment import Enrolment
from controlplane.services.nations import Nations
from controlplane.services.ports import Clock
from controlplane.services.trust import Trust
from treaty.errors import FoedusError, InvalidInput, ResourceExhausted
from treaty.names import SpiffeRole
from treaty.wire.certificates import MAX_LEAF_BYTES
from treaty.wire.status import grpc_status_code_only
from treaty.wire.v1 import reach_pb2, reach_pb2_grpc

log = structlog.get_logger(__name__)

PROOF_PREFIX: Final = b"foedus reach v1\n"
NONCE_LIFETIME: Final = timedelta(seconds=60)
MAX_NONCES: Final = 4096
BUCKET_CALLS: Final = 60
"""A nation's agents may share one address; a join and a check take a handful of calls each."""
REFILL_PER_SECOND: Final = 5
MAX_BUCKETS: Final = 4096

Context: TypeAlias = Any
T = TypeVar("T")


class Buckets:
    """Token buckets by address (rule 1)."""

    def __init__(self) -> None:
        self._filled: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def take(self, address: str, now: datetime) -> None:
        """Spend one call. Raises ResourceExhausted: none is left."""
        tokens, since = self._filled.pop(address, (float(BUCKET_CALLS), now))
        tokens = min(BUCKET_CALLS, tokens + max(0.0, (now - since).total_seconds()) * REFILL_PER_SECOND)
        self._filled[address] = (max(0.0, tokens - 1), now)
        if len(self._filled) > MAX_BUCKETS:
            self._filled.popitem(last=False)
        if tokens < 1:
            raise ResourceExhausted("too many calls from this address", remedy="wait a moment", code="RATE_LIMITED")


class Nonces:
    """Nonces that were given out and not used yet (rule 2)."""

    def __init__(self) -> None:
        self._given: OrderedDict[bytes, datetime] = OrderedDict()

    def give(self, now: datetime) -> bytes:
        nonce = secrets.token_bytes(32)
        self._given[nonce] = now
        if len(self._given) > MAX_NONCES:
            self._given.popitem(last=False)
        return nonce

    def use(self, nonce: bytes, now: datetime) -> bool:
        """True once for a nonce that was given within its lifetime."""
        given = self._given.pop(nonce, None)
        return given is not None and now - given < NONCE_LIFETIME


class ReachServicer(reach_pb2_grpc.ReachServicer):
    """Greets, diagnoses and hands out the charter."""

    def __init__(self, trust: Trust, nations: Nations, enrolment: Enrolment, clock: Clock) -> None:
        self._trust = trust
        self._nations = nations
        self._enrolment = enrolment
        self._clock = clock
        self._buckets = Buckets()
        self._nonces = Nonces()

    async def Greet(self, request: reach_pb2.GreetRequest, context: Context) -> reach_pb2.GreetResponse:  # noqa: N802
        async def greet() -> reach_pb2.GreetResponse:
            now = self._clock()
            return reach_pb2.GreetResponse(
                server_time=timestamp(now), charter_digest=self._trust.charter.digest, nonce=self._nonces.give(now)
            )

        return await self._limited("Reach/Greet", context, greet)

    async def Diagnose(  # noqa: N802
        self, request: reach_pb2.DiagnoseRequest, context: Context
    ) -> reach_pb2.DiagnoseResponse:
        async def diagnose() -> reach_pb2.DiagnoseResponse:
            code = await self._diagnosed(request, context.peer())
            return reach_pb2.DiagnoseResponse(code=code, server_time=timestamp(self._clock()))

        return await self._limited("Reach/Diagnose", context, diagnose)

    async def FetchCharter(  # noqa: N802
        self, request: reach_pb2.FetchCharterRequest, context: Context
    ) -> reach_pb2.FetchCharterResponse:
        async def fetch() -> reach_pb2.FetchCharterResponse:
            return reach_pb2.FetchCharterResponse(envelopes=self._trust.charter_envelopes)

        return await self._limited("Reach/FetchCharter", context, fetch)

    async def _diagnosed(self, request: reach_pb2.DiagnoseRequest, peer: str) -> str:
        if not self._nonces.use(request.nonce, self._clock()):
            return "BAD_PROOF"
        leaf = _leaf(request.certificate)
        if not _is_holder(leaf, PROOF_PREFIX + request.nonce, request.signature):
            return "BAD_PROOF"
        try:
            identity = self._trust.identify(leaf)
            if identity.role is SpiffeRole.AGENT:
                self._nations.check_accepted(identity)
                shown = self._enrolment.shown(identity, leaf, peer=peer, version=None)
                await self._enrolment.judge(identity, shown)
        except FoedusError as refusal:
            if refusal.code == "NOT_ACCEPTED":
                await self._enrolment.knocked(identity, leaf, peer=peer)
            return refusal.code
        return "ACCEPTED"

    async def _limited(self, method: str, context: Context, serve: Callable[[], Awaitable[T]]) -> T:
        failure: FoedusError | None = None
        try:
            self._buckets.take(_address(context.peer()), self._clock())
            answer = await serve()
        except FoedusError as err:
            failure = err
        except Exception:  # the boundary of one call: nothing of it may reach a stranger as text
            log.exception("call failed", method=method)
            failure = FoedusError("the coordinator failed to serve this call; its log says why")
        if failure is not None:
            CALLS.labels(method, failure.code).inc()
            await context.abort(*grpc_status_code_only(failure))
            raise failure
        CALLS.labels(method, "OK").inc()
        return answer


def _address(peer: str) -> str:
    """The peer's address: `ipv4:10.0.0.1:4711` is `10.0.0.1`; of IPv6 its /64; anything else as it stands."""
    host = unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def _leaf(der: bytes) -> x509.Certificate:
    if len(der) > MAX_LEAF_BYTES:
        raise InvalidInput("a certificate of more than 8 KiB is none")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as err:
        raise InvalidInput("not a DER certificate") from err


def _is_holder(leaf: x509.Certificate, message: bytes, signature: bytes) -> bool:
    try:
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):  # also a curve or a key that does not exist
        return False
    return True
