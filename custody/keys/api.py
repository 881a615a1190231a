"""What every device of keys looks like from above: tokens, key roles, key URIs, PIN readers.

The keys a `Token` returns *are* ``cryptography`` private keys: they sign certificates, open HPKE
messages and join hybrids unchanged, and nothing above this package knows which device it has.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Literal, Protocol, Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from custody.crypto.oaepslots import OaepParameters
from custody.encoding import KeyId, Record
from custody.errors import Malformed
from custody.formats.policy import TokenClass
from custody.keys.pin import PinReader
from custody.keys.uri import KeyUri, Pkcs11Uri, TpmUri, parse_key_uri

__all__ = [
    "KeyInfo",
    "KeyRole",
    "KeyUri",
    "PinReader",
    "PinState",
    "Pkcs11Uri",
    "SeenToken",
    "Token",
    "TokenInfo",
    "TpmUri",
    "find_key",
    "parse_key_uri",
]


class KeyRole(Enum):
    """What a key is for.  Roles never share a key: one key, one role, one use in its token."""

    SIGN = "sign"
    """Statements: officers, publishers, custodians, enrollers.  SIGN only."""
    SHARE = "share"
    """Opening shares and contents.  DERIVE only."""
    CA = "ca"
    """Certificates and revocation lists.  SIGN only."""
    LOG = "log"
    """Checkpoints and log consents.  SIGN only."""
    SITE = "site"
    """Opening a site's half of what releases a bundle.  DERIVE only."""

    @property
    def derives(self) -> bool:
        """Whether the key may ECDH (and so may not sign)."""
        return self in (KeyRole.SHARE, KeyRole.SITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """One private key in a token, as it can be seen without using it."""

    id: bytes
    label: str
    key_id: KeyId
    """SHA-256 of ``spki``: how a policy names the key."""
    spki: bytes
    role: KeyRole | None
    """None: the key was not made for a role here, or may be used for more than one."""
    uri: KeyUri
    """Names this key and no other, without a PIN source."""
    quirks: tuple[str, ...] = ()
    """Named departures from the role's template that the device's profile explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """A token as it describes itself.  Nothing in it is proven."""

    label: str
    manufacturer: str
    model: str
    serial: str
    firmware: str
    library: str
    profile: str
    token_class: TokenClass
    """``software`` where its kind is known to be; else ``self-asserted``, for nothing is proven."""
    pin_count_low: bool = False
    """A wrong PIN was given since the last right one (CKF_USER_PIN_COUNT_LOW)."""
    pin_final_try: bool = False
    """One more wrong PIN locks the token (CKF_USER_PIN_FINAL_TRY)."""
    pin_locked: bool = False


PinState = Literal["unset", "right", "low", "final-try", "locked"]


class SeenToken(Record, frozen=True):
    """A token as it shows itself to everybody, before any PIN."""

    uri: str
    """Names this token and no other."""
    label: str
    manufacturer: str
    model: str
    serial: str
    profile: str
    token_class: TokenClass
    pinpad: bool
    """The PIN is typed at the token (CKF_PROTECTED_AUTHENTICATION_PATH)."""
    pin: PinState
    """What it says of its PIN: wrong ones given since the last right one, or none set yet."""


class OaepKeys(Protocol):
    """A device's RSA keys that shares are sealed to.  They decrypt OAEP, and do nothing else."""

    def make(self, label: str, parameters: OaepParameters) -> rsa.RSAPrivateKey:
        """Make a key pair in the device and decrypt with it.  It cannot: `Unavailable`."""

    def find(self, key_id: KeyId) -> rsa.RSAPrivateKey:
        """Find the one key with that public key; errors as `Token.find`."""


class Token(Protocol):
    """A device holding keys, opened for one command; leaving the ``with`` block wipes its PIN.

    Every method raises `Unavailable` if the device cannot be asked, `Refused` with check
    ``token.pin``, ``token.pin-locked`` or ``token.pin-final-try`` if it turns the person away.
    """

    @property
    def info(self) -> TokenInfo:
        """The device's description of itself, as it is now."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def session(self) -> AbstractContextManager[None]:
        """Do all operations of the block under one login; others of this process wait."""

    def find(
        self,
        role: KeyRole,
        *,
        label: str | None = None,
        id: bytes | None = None,
        key_id: KeyId | None = None,
    ) -> ec.EllipticCurvePrivateKey:
        """Find the one key with this id, label and public key digest, made for ``role``.

        A label is not an identity: with neither ``id`` nor ``key_id`` the answer is `Refused`
        (``key.unpinned``).  None found: `Unavailable`; several: `Refused` (``key.ambiguous``);
        another public key than ``key_id``: `Refused` (``key.public``); a key that may do more than
        its role: `Refused` (``key.template``).
        """

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve
    ) -> ec.EllipticCurvePrivateKey:
        """Make a key pair in the device, with the role's full template, read back."""

    def keys(self) -> tuple[KeyInfo, ...]:
        """List the private keys."""

    def decrypting(self) -> OaepKeys:
        """Return its share keys that decrypt, for a device that does not agree."""

    def random(self, size: int) -> bytes:
        """Draw ``size`` random bytes from the device; mix them, never use them alone."""


def find_key(
    token: Token, uri: KeyUri, role: KeyRole, *, key_id: KeyId | None = None
) -> ec.EllipticCurvePrivateKey:
    """Find the key a URI names, which must be ``key_id`` if that is known; errors as `Token.find`.

    A TPM's persistent handle serves as the key's id (4 bytes, big endian).
    """
    if isinstance(uri, TpmUri):
        handle = None if uri.handle is None else uri.handle.to_bytes(4, "big")
        return token.find(role, id=handle, key_id=key_id)
    if uri.type not in (None, "private"):
        raise Malformed(f"the URI names an object of type {uri.type}, not a private key")
    return token.find(role, label=uri.object, id=uri.id, key_id=key_id)
