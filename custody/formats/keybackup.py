"""Backups of keys that live in tokens, and the key they leave under.  Format: keybackup.md."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.encoding import Blob, Bytes32, Digest, KeyId, Moment, Name, Record, Text, key_id

#: Which keys are backed up: a key-encryption key (AES-256), an authority's key (EC).
BackedUpRole = Literal["kek", "ca"]
#: The hash of RSA-OAEP and of its MGF1, as the token that wrapped has it.
OaepHash = Literal["sha1", "sha256", "sha384", "sha512"]
#: How the key is wrapped under a carrying key, where RSA-OAEP does not take it directly.
CarrierMechanism = Literal["AES_KEY_WRAP_PAD", "AES_KEY_WRAP_KWP"]

#: Size of an RSA-4096 modulus, and so of what is wrapped under it.
RSA_BYTES = 512
#: A token tells fewer attributes of a key than this.
MAX_ATTRIBUTES = 64

#: What the two objects are called by which a token trusts a wrapping key.
WRAPPING_LABEL = "recovery"
CARRIER_LABEL = "recovery carrier"

AttributeName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z0-9_]{1,40}\Z")]


class SealedWrappingKey(Record, frozen=True):
    """An RSA-4096 key: its public half, and its private half sealed under a recovery seed."""

    spki: Annotated[bytes, msgspec.Meta(min_length=1, max_length=1024)]
    salt: Bytes32
    sealed: Annotated[bytes, msgspec.Meta(min_length=17, max_length=4096)]

    @property
    def key_id(self) -> KeyId:
        """SHA-256 of the public half."""
        return key_id(self.spki)


class WrappingKey(Record, frozen=True):
    """A custodian's statement: keys may leave tokens under this key, and return by that seed.

    ``proof``, by the recovery key itself, shows that enough shares were there when it was made.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:wrapping-key:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Name
    record: Digest
    key: SealedWrappingKey
    proof: Annotated[bytes, msgspec.Meta(min_length=8, max_length=144)]
    made_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the environment and the key."""
        return f"{self.environment}/wrapping-key", self.key.key_id


class KeyAttribute(Record, frozen=True):
    """One attribute of a key, as its token told it.

    A flag is ``true`` or ``false``, bytes are in hex, mechanisms are one space apart.
    """

    name: AttributeName
    value: Text


class HeldIn(Record, frozen=True):
    """Which token a key was in, as it described itself."""

    label: Text
    manufacturer: Text
    model: Text
    serial: Text


class KeyBackup(Record, frozen=True):
    """A custodian's statement: this is that key, wrapped, and these were its attributes.

    ``check`` is a KEK's check value, and of an authority's key SHA-256 of its public half.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:key-backup:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Name
    record: Digest
    wrapping: SealedWrappingKey
    role: BackedUpRole
    label: Annotated[Text, msgspec.Meta(min_length=1)]
    id: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
    check: Digest
    spki: Blob | None
    attributes: Annotated[
        tuple[KeyAttribute, ...], msgspec.Meta(min_length=1, max_length=MAX_ATTRIBUTES)
    ]
    oaep_hash: OaepHash
    wrapped: Annotated[bytes, msgspec.Meta(min_length=RSA_BYTES, max_length=RSA_BYTES)]
    carrier: CarrierMechanism | None
    carried: Annotated[bytes, msgspec.Meta(min_length=16, max_length=1024)] | None
    held_in: HeldIn
    made_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [attribute.name for attribute in self.attributes]
        if names != sorted(set(names)):
            raise ValueError("attributes: not in order, each once")
        if (self.role == "ca") != (self.spki is not None):
            raise ValueError("spki: an authority's key has one, a key-encryption key has none")
        if self.spki is not None and self.check != key_id(self.spki):
            raise ValueError("check: is not the digest of the public key")
        if (self.role == "ca", self.role == "ca") != (
            self.carrier is not None,
            self.carried is not None,
        ):
            raise ValueError("carried: what an authority's key has, and a key-encryption key not")

    def subject(self) -> tuple[str, Digest]:
        """Name the key by its role and check value."""
        return f"{self.environment}/{self.role}", self.check


def wrapping_id(spki: bytes) -> bytes:
    """Return the id that a trusted wrapping key has in a token."""
    return b"wrap-" + key_id(spki)[:16].encode()


def carrier_id(spki: bytes) -> bytes:
    """Return the id of the AES key beside it."""
    return b"carry-" + key_id(spki)[:16].encode()
