"""The X.509 side of identity: constrained CAs, short leaves, and how a leaf is believed.

One CA per authority (a nation, or the coordinator), self-signed, ECDSA P-256, path length 0, its URI names constrained
to the authority's own host. TLS libraries enforce the constraint by host only and show no verified chain, so
`check_leaf` asks again at every call:
1. the leaf carries exactly one URI name and it parses strictly as a SPIFFE id of this treaty;
2. the CA that the charter names *for that authority* signed this leaf directly;
3. the leaf is no CA, is for client authentication, and is within its validity.

Certificates are dated two hours back, so that a clock somewhat behind does not refuse a fresh one.
Source: RFC 5280 (4.2.1.9, 4.2.1.10), SPIFFE X.509-SVID. Ed25519 leaves fail gRPC's handshake, hence P-256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from treaty.charter import Charter
from treaty.errors import IdentityRefused, InvalidInput
from treaty.names import COORDINATOR_HOST, Digest, SpiffeId, SpiffeRole, digest_of, spiffe_id

BACKDATED = timedelta(hours=2)
DEFAULT_LEAF_LIFETIME = timedelta(hours=8)
CA_LIFETIME = timedelta(days=3650)
MAX_LEAF_BYTES = 8 * 1024
REMEMBERED: Final = 1024
"""Certificates of which is remembered what does not change: what their bytes say and who signed them. Validity in time,
the charter's choice of CA and revocation are looked at anew at every call."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def new_ca(authority: str, domain: str, now: datetime, *, lifetime: timedelta = CA_LIFETIME) -> Issued:
    """Make the CA of `authority` (a nation in lower case, or `coordinator`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    host = f"{authority}.{domain}"
    name = _common_name(f"Foedus CA {host}"[:64])
    constraint = x509.NameConstraints([x509.UniformResourceIdentifier(host)], None)
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(name, name, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(constraint, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(key, certificate)


def issue_client(ca: Issued, identity: SpiffeId, now: datetime, lifetime: timedelta = DEFAULT_LEAF_LIFETIME) -> Issued:
    """Issue a short client certificate that names `identity`."""
    names = [x509.UniformResourceIdentifier(str(identity))]
    return _issue(ca, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime)


def issue_server(
    ca: Issued, dns_names: Sequence[str], now: datetime, lifetime: timedelta = DEFAULT_LEAF_LIFETIME
) -> Issued:
    """Issue a server certificate for the coordinator's DNS names."""
    return _issue(ca, [x509.DNSName(name) for name in dns_names], ExtendedKeyUsageOID.SERVER_AUTH, now, lifetime)


def _issue(
    ca: Issued, names: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier, now: datetime, lifetime: timedelta
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_common_name("foedus"), ca.certificate.subject, key.public_key(), now, lifetime)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_usage(digital_signature=True, key_cert_sign=False, crl_sign=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return Issued(key, certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, digital_signature: bool, key_cert_sign: bool, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def load_issued(key_pem: bytes, certificate_pem: bytes) -> Issued:
    """Read a key and its certificate. Raises: InvalidInput: not P-256, or the two do not belong together."""
    certificate = load_certificate(certificate_pem)
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as err:
        raise InvalidInput("not a PEM private key") from err
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidInput("the private key is not the certificate's")
    return Issued(key, certificate)


@lru_cache(maxsize=REMEMBERED)
def load_certificate(pem: bytes) -> x509.Certificate:
    """Read one PEM certificate. Raises: InvalidInput: anything else."""
    if len(pem) > MAX_LEAF_BYTES:
        raise InvalidInput("a certificate of more than 8 KiB is none")
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as err:
        raise InvalidInput("not a PEM certificate") from err


def certificate_digest(certificate: x509.Certificate) -> Digest:
    """Names a CA in a revocation: digest of its DER."""
    return digest_of(certificate.public_bytes(serialization.Encoding.DER))


def ca_digest(ca_pem: str) -> Digest:
    return certificate_digest(load_certificate(ca_pem.encode("ascii", "replace")))


def check_authorities(charter: Charter) -> None:
    """Check that each CA of a charter is constrained to its own authority's host, and to nothing else.

    One of another domain would be refused at each handshake without a word; one without a constraint could name others.
    Raises: InvalidInput, naming the party.
    """
    _check_constraint("the coordinator", charter.coordinator.ca_pem, f"{COORDINATOR_HOST}.{charter.domain}")
    for code, nation in charter.nations.items():
        _check_constraint(code, nation.ca_pem, f"{code.lower()}.{charter.domain}")


def _check_constraint(party: str, ca_pem: str, host: str) -> None:
    ca = load_certificate(ca_pem.encode("ascii", "replace"))
    try:
        constraint = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        permitted = []
    else:
        subtrees = constraint.permitted_subtrees or []
        permitted = [name.value for name in subtrees if isinstance(name, x509.UniformResourceIdentifier)]
    if permitted != [host]:
        found = f"constrained to {', '.join(permitted)[:300]}" if permitted else "constrained to no host"
        raise InvalidInput(
            f"the CA of {party} is {found}, and this charter needs {host}",
            remedy="have its descriptor made with the --domain of the charter, or draft the charter for its domain",
        )


def check_leaf(leaf: x509.Certificate, charter: Charter, now: datetime) -> SpiffeId:
    """Who holds this certificate, by the rules in the module's docstring.

    Raises: IdentityRefused with code MALFORMED_ID, NOT_A_PARTY, FOREIGN_CA, NOT_YET_VALID or EXPIRED.
    """
    identity = _claimed_identity(leaf, charter.domain)  # 1
    is_agent = identity.role is SpiffeRole.AGENT
    ca_pem = charter.nation(identity.nation).ca_pem if is_agent else charter.coordinator.ca_pem
    ca = load_certificate(ca_pem.encode("ascii"))
    _check_issued(leaf, ca, identity)  # 2, 3
    if now < max(leaf.not_valid_before_utc, ca.not_valid_before_utc):
        raise IdentityRefused("the certificate is not valid yet", code="NOT_YET_VALID", remedy="check the clocks")
    if now >= min(leaf.not_valid_after_utc, ca.not_valid_after_utc):
        raise IdentityRefused("the certificate has expired", code="EXPIRED", remedy="renew it, or check the clocks")
    return identity


@lru_cache(maxsize=REMEMBERED)
def _check_issued(leaf: x509.Certificate, ca: x509.Certificate, identity: SpiffeId) -> None:
    """Steps 2 and 3. What was found good of these very bytes is remembered; a refusal is not."""
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError) as err:
        raise IdentityRefused(
            f"the charter's CA for {identity} did not issue this certificate", code="FOREIGN_CA"
        ) from err
    _check_usage(leaf)


@lru_cache(maxsize=REMEMBERED)
def _claimed_identity(leaf: x509.Certificate, domain: str) -> SpiffeId:
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = alternative
    except (x509.ExtensionNotFound, ValueError) as err:
        raise IdentityRefused("the certificate does not carry exactly one name", code="MALFORMED_ID") from err
    if not isinstance(uri, x509.UniformResourceIdentifier):
        raise IdentityRefused("the certificate's name is not a URI", code="MALFORMED_ID")
    try:
        return spiffe_id(uri.value, domain)
    except InvalidInput as err:
        raise IdentityRefused(err.message, code="MALFORMED_ID") from err


def _check_usage(leaf: x509.Certificate) -> None:
    try:
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError) as err:
        raise IdentityRefused("the certificate does not say what it is for", code="MALFORMED_ID") from err
    if constraints.ca or list(usages) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise IdentityRefused("the certificate is not for client authentication", code="MALFORMED_ID")
