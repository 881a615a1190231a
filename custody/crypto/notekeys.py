"""The keys that sign notes: C2SP signed-note, tlog-cosignature.

Three kinds: Ed25519 (0x01) and ECDSA with P-256 (0x02), by which logs sign, and timestamped Ed25519
cosignatures (0x04), by which witnesses do.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from custody.crypto.signature import load_ec_public, public_bytes, sign, verify_foreign
from custody.encoding import sha256
from custody.errors import Malformed, Refused

_KEY_ID_BYTES = 4
_TIME_BYTES = 8
_ED25519_PUBLIC_BYTES = 32
_ED25519_SIGNATURE_BYTES = 64
_MAX_NAME_CHARS = 255
_MAX_SECONDS = 2**63 - 1
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+(.+)", re.DOTALL)


class KeyKind(IntEnum):
    """A signature type identifier byte."""

    ED25519 = 1
    ECDSA = 2
    COSIGNATURE = 4


@dataclass(frozen=True)
class NoteKey:
    """A public key with the name it signs by.

    ``public`` is 32 bytes (RFC 8032), or the DER SubjectPublicKeyInfo of a P-256 key.
    """

    name: str
    kind: KeyKind
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind is not KeyKind.ECDSA:
            if len(self.public) != _ED25519_PUBLIC_BYTES:
                raise Malformed("not a 32-byte Ed25519 public key")
        # The specification lets P-384 and P-521 keys sign, and leaves open by which hash.
        elif not isinstance(load_ec_public(self.public).curve, ec.SECP256R1):
            raise Malformed("not a P-256 public key")

    @cached_property
    def id(self) -> bytes:
        """The key ID, 4 bytes: it tells keys apart and vouches for nothing."""
        if self.kind is KeyKind.ECDSA:
            return sha256(self.public)[:_KEY_ID_BYTES]
        named = self.name.encode() + b"\n" + bytes([self.kind])
        return sha256(named, self.public)[:_KEY_ID_BYTES]

    @cached_property
    def vkey(self) -> str:
        """The verifier key, one line of text: name, key ID, kind and public key."""
        material = to_base64(bytes([self.kind]) + self.public)
        return f"{self.name}+{self.id.hex()}+{material}"

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Refuse (``note.signature``) a signature that is not right for ``text``.

        Returns the time a cosignature states, in POSIX seconds; the other kinds state none.
        """
        try:
            if self.kind is KeyKind.ECDSA:
                verify_foreign(self.public, text, signature)
                return None
            public = ed25519.Ed25519PublicKey.from_public_bytes(self.public)
            if self.kind is KeyKind.ED25519:
                public.verify(signature, text)
                return None
            seconds = cosigned_at(signature)
            public.verify(signature[_TIME_BYTES:], cosigned_text(text, seconds))
            return seconds
        except (InvalidSignature, Malformed, Refused, ValueError) as error:
            raise Refused(
                f"the signature by {self.name} is not right", check="note.signature"
            ) from error


@dataclass(frozen=True, slots=True)
class LogSigner:
    """A log's name and P-256 key, which may live in a token."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def note_key(self) -> NoteKey:
        """The public half."""
        return NoteKey(self.name, KeyKind.ECDSA, public_bytes(self.key.public_key()))

    def sign(self, text: bytes) -> bytes:
        """Sign a note's text."""
        return sign(self.key, text)


@dataclass(frozen=True, slots=True)
class WitnessSigner:
    """A witness's name and Ed25519 key."""

    name: str
    key: ed25519.Ed25519PrivateKey = field(repr=False)

    @property
    def note_key(self) -> NoteKey:
        """The public half."""
        public = self.key.public_key().public_bytes_raw()
        return NoteKey(self.name, KeyKind.COSIGNATURE, public)

    def cosign(self, text: bytes, *, seconds: int) -> bytes:
        """Cosign a checkpoint's text as of a POSIX time."""
        return seconds.to_bytes(_TIME_BYTES, "big") + self.key.sign(cosigned_text(text, seconds))


def parse_vkey(text: str) -> NoteKey:
    """Read a verifier key; one that would not be written the same way is `Malformed`."""
    match = _VKEY.fullmatch(text)
    # What came as bytes that are no UTF-8 has no bytes of its own to be hashed with.
    if match is None or any("\ud800" <= char <= "\udfff" for char in text):
        raise Malformed("not a verifier key: NAME+ID+KEY")
    material = from_base64(match[3])
    if not material or material[0] not in set(KeyKind):
        raise Malformed("a verifier key of a kind that is not read here")
    key = NoteKey(match[1], KeyKind(material[0]), material[1:])
    if key.id.hex() != match[2]:
        raise Malformed("the key ID does not follow from the verifier key")
    return key


def cosigned_text(text: bytes, seconds: int) -> bytes:
    """Return what a witness signs: a header that no note begins with, the time, the text."""
    return b"cosignature/v1\ntime %d\n%b" % (seconds, text)


def cosigned_at(signature: bytes) -> int:
    """Return the time a cosignature states, in POSIX seconds, not yet verified."""
    if len(signature) != _TIME_BYTES + _ED25519_SIGNATURE_BYTES:
        raise Malformed("not a timestamped Ed25519 signature")
    seconds = int.from_bytes(signature[:_TIME_BYTES], "big")
    if seconds > _MAX_SECONDS:
        raise Malformed("the time of the cosignature is out of range")
    return seconds


def check_name(name: str) -> None:
    """Raise `Malformed` unless a key may have this name: no spaces, no plus sign, one line."""
    bad = any(char.isspace() or char == "+" or char < " " for char in name)
    if not 0 < len(name) <= _MAX_NAME_CHARS or bad:
        raise Malformed("not a key name: 1 to 255 characters, no spaces, no plus sign")


def to_base64(data: bytes) -> str:
    """Write standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Read what `to_base64` writes, and nothing else."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("not base64") from error
    # The bits under the padding could otherwise be anything: one value, many spellings.
    if to_base64(data) != text:
        raise Malformed("not canonical base64")
    return data
