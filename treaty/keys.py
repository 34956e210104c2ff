"""Signing keys: Ed25519, named by the digest of their public half.

A key id is `sha256:` over the DER SubjectPublicKeyInfo, so an id cannot be claimed by another key, and a key counts
once towards a threshold however often it is listed. Private keys live in PKCS #8 PEM files of mode 0600, encrypted
where a passphrase is given. TLS keys (ECDSA P-256) are not here: they belong to `treaty.wire.certificates`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from treaty.errors import ConflictError, InvalidInput, NotFound
from treaty.files import about
from treaty.names import KeyId, digest_of

_MAX_PEM_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """The public half of an Ed25519 key under its key id."""

    key_id: KeyId
    public: Ed25519PublicKey

    def pem(self) -> str:
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode("ascii")

    def as_sslib(self) -> SSlibKey:
        """The same key as securesystemslib's DSSE verifier takes it."""
        return SSlibKey.from_crypto(self.public, keyid=self.key_id)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its name. Never logged, never serialised but to its own file."""

    key_id: KeyId
    private: Ed25519PrivateKey

    @property
    def verification(self) -> VerificationKey:
        return VerificationKey(self.key_id, self.private.public_key())

    def as_signer(self) -> CryptoSigner:
        return CryptoSigner(self.private, self.verification.as_sslib())


def _key_id(public: Ed25519PublicKey) -> KeyId:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyId(digest_of(der))


def new_signing_key() -> SigningKey:
    private = Ed25519PrivateKey.generate()
    return SigningKey(_key_id(private.public_key()), private)


def parse_verification_key(pem: str) -> VerificationKey:
    """Read a public key. Raises InvalidInput for anything but one Ed25519 SubjectPublicKeyInfo in PEM."""
    if len(pem) > _MAX_PEM_BYTES:
        raise InvalidInput("a public key of more than 16 KiB is none")
    try:
        public = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError) as err:
        raise InvalidInput("not a PEM public key", remedy="pass the .pub file that 'foedus key new' wrote") from err
    if not isinstance(public, Ed25519PublicKey):
        raise InvalidInput(
            "not an Ed25519 key",
            remedy="check the path, mount its disk, or restore it from a backup; the charter knows no new key",
        )
    return VerificationKey(_key_id(public), public)


def write_key(directory: Path, name: str, key: SigningKey, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write `name.key` (0600) and `name.pub`. Never overwrites.

    Returns: the two paths. Raises: ConflictError: a key of this name is already there.
    """
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    private_pem = key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_path, public_path = directory / f"{name}.key", directory / f"{name}.pub"
    write_new(private_path, private_pem, mode=0o600)
    write_new(public_path, key.verification.pem().encode("ascii"), mode=0o644)
    return private_path, public_path


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Create `path` with `content`, durable, refusing to overwrite. Raises: ConflictError: it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as err:
        raise ConflictError(f"{path} exists already", remedy="choose another name, or move it away first") from err
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_signing_key(path: Path, *, passphrase: bytes | None = None) -> SigningKey:
    """Read a private key file.

    Raises: NotFound: no such file. InvalidInput: not a key, a wrong passphrase, or readable by others.
    """
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError as err:
        raise NotFound(f"no key file {path}", remedy="make one with 'foedus key new'") from err
    if mode & 0o077:
        raise InvalidInput(f"key file {path} is readable by others (mode {mode:o})", remedy=f"chmod 600 {path}")
    if len(content) > _MAX_PEM_BYTES:
        raise InvalidInput(f"{path} is not a private key")
    try:
        private = serialization.load_pem_private_key(content, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise InvalidInput(
            f"{path} is not a PEM private key, or its passphrase is wrong", remedy="check --passphrase-file"
        ) from err
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is not an Ed25519 key", remedy="make one with 'foedus key new'")
    return SigningKey(_key_id(private.public_key()), private)


def read_verification_key(path: Path) -> VerificationKey:
    try:
        with about(path):
            return parse_verification_key(path.read_text("ascii"))
    except FileNotFoundError as err:
        raise NotFound(f"no public key file {path}") from err
    except UnicodeDecodeError as err:
        raise InvalidInput(f"{path} is not a PEM public key") from err
