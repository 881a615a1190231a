"""The manifest: what travels, and who its secrets are sealed to.  Format: manifest.md."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto.bind import bind
from custody.encoding import Bytes32, Count, Digest, KeyId, Moment, Record, encode
from custody.formats.policy import PartDigest, SuiteName

#: Child indexes from the root of the quorum tree, ``0/2``; the empty path is "no leaf".
LeafPath = Annotated[
    str,
    msgspec.Meta(pattern=r"\A(?:(?:[0-9]|[12][0-9]|3[01])(?:/(?:[0-9]|[12][0-9]|3[01])){0,7})?\Z"),
]
Sealed = Annotated[bytes, msgspec.Meta(min_length=16, max_length=8192)]
#: A 32-byte key under AES-256-GCM, with its tag.
WrappedKey = Annotated[bytes, msgspec.Meta(min_length=48, max_length=48)]


class Core(Record, frozen=True):
    """What is public about a bundle.  Everything secret is bound to it."""

    payload_id: Digest
    environment: Digest
    policy_version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    tree: Digest
    publisher: KeyId
    part_size_bytes: Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 26)]
    part_count: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
    part_digest: PartDigest
    parts_root: Digest
    cek_commitment: Digest
    contents: Digest
    contents_size_bytes: Count
    site: Annotated[tuple[KeyId, ...], msgspec.Meta(min_length=1, max_length=16)] | None
    recovery: KeyId | None
    sealed_at: Moment
    not_after: Moment
    replaces: Digest | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part_size_bytes & (self.part_size_bytes - 1):
            raise ValueError("partSizeBytes: not a power of two")
        if self.not_after <= self.sealed_at:
            raise ValueError("notAfter: not after sealedAt")
        if self.site is not None and list(self.site) != sorted(set(self.site)):
            raise ValueError("site: recipients not sorted, each once")

    def binding(self) -> bytes:
        """Return ``C``, which every secret of the envelope is bound to (32 bytes)."""
        return bind("core", encode(self))


class KeySlot(Record, frozen=True):
    """One secret sealed to one recipient.  ``leaf`` is empty unless the purpose is ``share``."""

    purpose: Literal["share", "contents", "site", "recovery"]
    leaf: LeafPath
    recipient: KeyId
    suite: SuiteName
    sealed: Sealed


class LeafCommitment(Record, frozen=True):
    """What a leaf's share must hash to, so that a bad share is found on arrival and named."""

    leaf: LeafPath
    commitment: Digest


class Wrap(Record, frozen=True):
    """One secret encrypted under another: CEK under R, or the contents key under CEK.

    Where the core names a site's keys, what CEK is under is R ‖ K_site.
    """

    purpose: Literal["cek", "contents"]
    salt: Bytes32
    sealed: WrappedKey


class SecretEnvelope(Record, frozen=True):
    """Every secret of a bundle, sealed."""

    slots: Annotated[tuple[KeySlot, ...], msgspec.Meta(min_length=1, max_length=2048)]
    commitments: Annotated[tuple[LeafCommitment, ...], msgspec.Meta(min_length=1, max_length=512)]
    wraps: Annotated[tuple[Wrap, ...], msgspec.Meta(min_length=2, max_length=2)]

    def __post_init__(self) -> None:
        super().__post_init__()
        order = [(s.purpose, s.leaf, s.recipient) for s in self.slots]
        if order != sorted(set(order)):
            raise ValueError("slots: not sorted by purpose, leaf and recipient, each once")
        leaves = [c.leaf for c in self.commitments]
        if leaves != sorted(set(leaves)):
            raise ValueError("commitments: not sorted by leaf, each once")
        if not leaves[0]:
            raise ValueError("commitments: one names no leaf")
        if [w.purpose for w in self.wraps] != ["cek", "contents"]:
            raise ValueError("wraps: not exactly cek and contents")
        if any((s.purpose == "share") != bool(s.leaf) for s in self.slots):
            raise ValueError("slots: a share has a leaf, nothing else has")


class Manifest(Record, frozen=True):
    """A publisher's statement about one bundle for one environment.  Not checked yet."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:manifest:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    core: Core
    envelope: SecretEnvelope

    def __post_init__(self) -> None:
        super().__post_init__()
        recovery = [slot.recipient for slot in self.envelope.slots if slot.purpose == "recovery"]
        if recovery != ([] if self.core.recovery is None else [self.core.recovery]):
            raise ValueError("slots: not one for the recovery key of the core, and none without")
        site = tuple(slot.recipient for slot in self.envelope.slots if slot.purpose == "site")
        if site != (self.core.site or ()):
            raise ValueError("slots: not one for each site key of the core, and none without")

    def subject(self) -> tuple[str, Digest]:
        """Name the sealed contents."""
        return "contents.sealed", self.core.contents

    def commitment(self, leaf: str) -> Digest | None:
        """Return the commitment to the share of ``leaf``."""
        return next((c.commitment for c in self.envelope.commitments if c.leaf == leaf), None)

    def slots_for(self, recipient: KeyId) -> tuple[KeySlot, ...]:
        """Return the slots sealed to ``recipient``."""
        return tuple(slot for slot in self.envelope.slots if slot.recipient == recipient)

    def wrap(self, purpose: str) -> Wrap:
        """Return the wrap for ``purpose``; both always exist."""
        return next(wrap for wrap in self.envelope.wraps if wrap.purpose == purpose)
