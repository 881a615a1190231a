"""What a token that wraps keys looks like from above: key-encryption keys, made and used.

A key-encryption key (KEK) is an AES-256 key that wraps and unwraps secrets of 32 bytes inside its
token and does nothing else.  It has no public half: what tells one from another is its check value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from custody.crypto.secret import Octets
from custody.encoding import Digest
from custody.errors import Unavailable
from custody.formats.keybackup import (
    BackedUpRole,
    CarrierMechanism,
    HeldIn,
    KeyAttribute,
    KeyBackup,
    OaepHash,
)
from custody.keys.api import KeyInfo, KeyRole, KeyUri, PinReader, Token

#: How a KEK wraps: RFC 5649 under either of its two numbers in PKCS#11, or RFC 3394.
WrapMechanism = Literal["AES_KEY_WRAP_PAD", "AES_KEY_WRAP_KWP", "AES_KEY_WRAP"]
#: How one wraps that can be backed up: never as a carrier does.  Both leave as 32 bytes under RSA,
#: and a carrier that came back as a KEK would unwrap the authority's key that it carried.
RECOVERABLE_WRAP: WrapMechanism = "AES_KEY_WRAP"

#: Size of what a KEK wraps.
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KekInfo:
    """One KEK in a token, as it can be told from others."""

    id: bytes
    label: str
    check: Digest
    """Its check value: ``bind("kek-check", W)``, W what it makes of `CHECKED` (40 bytes)."""
    mechanism: WrapMechanism
    recoverable: bool
    """It may leave under a key that the token's security officer trusts, and under no other."""
    restored: bool
    """It was brought here from a backup, and not made in this token."""
    uri: KeyUri


class Kek(Protocol):
    """A KEK that was found.  Errors as `Token` has them."""

    @property
    def info(self) -> KekInfo:
        """Which one it is."""

    def wrap(self, secret: Octets) -> bytes:
        """Wrap 32 bytes by C_WrapKey: 40 bytes.  Nothing but the KEK is bound to the result."""

    def unwrap(self, wrapped: bytes) -> bytearray:
        """Undo `wrap` by C_UnwrapKey; what this KEK did not wrap is `Refused` (``kek.unwrap``)."""


class Wrapping(Protocol):
    """The KEKs of one opened token."""

    def make_kek(self, label: str, *, recoverable: bool) -> Kek:
        """Make a KEK in the token with its full template, read back."""

    def check_free(self, label: str) -> None:
        """Refuse (``kek.exists``) a label that a secret key there bears.

        Of two that look alike neither could be destroyed.  A ceremony that was killed beside a new
        KEK does not ask: it makes another, and lists both.
        """

    def find_kek(
        self, *, label: str | None = None, id: bytes | None = None, check: Digest | None = None
    ) -> Kek:
        """Find the one KEK with this label, id and check value.

        With neither ``id`` nor ``check`` the answer is `Refused` (``key.unpinned``).  None found:
        `Unavailable`; several: `Refused` (``key.ambiguous``); another check value: `Refused`
        (``kek.check``); a key that may do more than a KEK: `Refused` (``key.template``).
        """

    def keks(self) -> tuple[KekInfo, ...]:
        """List the KEKs that are as they must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key as it left its token; fields are those of `KeyBackup`."""

    role: BackedUpRole
    label: str
    id: bytes
    check: Digest
    spki: bytes | None
    attributes: tuple[KeyAttribute, ...]
    oaep_hash: OaepHash
    wrapped: bytes = field(repr=False)
    carrier: CarrierMechanism | None = None
    carried: bytes | None = field(default=None, repr=False)
    held_in: HeldIn


class Backups(Protocol):
    """How keys leave one opened token, and come into another.

    Its errors besides: ``backup.never`` for a key that was made so that it never leaves,
    ``backup.untrusted`` where the token's SO has not trusted the wrapping key, ``backup.exists``
    for a key that is there, ``backup.attributes`` and ``backup.check`` for what would come back as
    another key.
    """

    def trust(self, spki: bytes, *, so_pin: PinReader) -> bool:
        """Have the SO trust an RSA-4096 public key; say whether EC keys can leave under it too.

        EC keys are too long for RSA-OAEP: they leave under an AES key that the SO trusts as well
        and that leaves under the RSA key.  Not every token has such keys.
        """

    def wrap_kek(self, kek: KekInfo, spki: bytes) -> WrappedKey:
        """Wrap a KEK under a trusted RSA key."""

    def wrap_authority(self, key: KeyInfo, spki: bytes) -> WrappedKey:
        """Wrap an authority's key under a trusted RSA key, by way of an AES key."""

    def check_new(self, backup: KeyBackup) -> None:
        """Refuse what `restore` would before the key of the backup is known."""

    def restore(self, backup: KeyBackup, private: rsa.RSAPrivateKey) -> None:
        """Bring a key back with its full template, read it back, and hold it to ``check``.

        A first try is with a session object: nothing wrong stays in the token.
        """


class WrappingToken(Token, Protocol):
    """A token that may have KEKs, and keys that can be backed up."""

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve, *, recoverable: bool = False
    ) -> ec.EllipticCurvePrivateKey:
        """Make a key pair as `Token.make` does; a ``recoverable`` one can be backed up."""

    def wrapping(self) -> Wrapping:
        """Return its KEKs, under the token's own login."""

    def backups(self) -> Backups:
        """Return what takes keys out and in, under the token's own login."""


def wrapping_of(token: Token) -> Wrapping:
    """Return the KEKs of an opened token; one that wraps nothing is `Unavailable`."""
    return _wrapping_token(token).wrapping()


def backups_of(token: Token) -> Backups:
    """Return what takes keys out of an opened token; of one that has no such way: `Unavailable`."""
    return _wrapping_token(token).backups()


def make_recoverable(
    token: Token, role: KeyRole, label: str, curve: ec.EllipticCurve
) -> ec.EllipticCurvePrivateKey:
    """Make a key pair that can be backed up; `Unavailable` in a token that no key leaves."""
    return _wrapping_token(token).make(role, label, curve, recoverable=True)


def _wrapping_token(token: Token) -> WrappingToken:
    if not hasattr(token, "wrapping"):
        raise Unavailable(
            "this token wraps no keys",
            where=f"token {token.info.label}",
            hint="a key-encryption key needs a PKCS#11 token with AES key wrap",
        )
    return cast("WrappingToken", token)
