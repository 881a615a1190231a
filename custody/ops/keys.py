"""The private keys an actor brings to an operation, whatever device they live in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import SlotKey, recipient_id
from custody.crypto.signature import public_bytes, sign
from custody.encoding import KeyId, key_id
from custody.formats.envelope import Predicate, Signature, encode_statement, signing_bytes


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key in a token."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def spki(self) -> bytes:
        """The public half, DER."""
        return public_bytes(self.key.public_key())

    @property
    def key_id(self) -> KeyId:
        """Hex SHA-256 of the SPKI."""
        return key_id(self.spki)

    def signature(self, predicate: Predicate) -> Signature:
        """Sign what ``predicate`` says."""
        return Signature(keyid=self.key_id, sig=sign(self.key, signing_bytes(predicate)))

    def statement(self, predicate: Predicate) -> bytes:
        """Write the ``.dsse`` file of a one-signer statement."""
        return encode_statement(predicate, [self.signature(predicate)])


@dataclass(frozen=True, slots=True)
class ShareOpener:
    """A share key in a token, and its ML-KEM seed where the suite is hybrid."""

    key: SlotKey = field(repr=False)
    mlkem_public: bytes | None = None
    mlkem_seed: bytes | None = field(default=None, repr=False)

    @property
    def recipient(self) -> KeyId:
        """The recipient id that slots name."""
        return recipient_id(public_bytes(self.key.public_key()), self.mlkem_public)


#: Draws random bytes in the actor's token; mixed with the operating system's, never alone.
TokenRandom = Callable[[int], bytes]
