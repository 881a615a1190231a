"""Recovery: the record of who holds which share of which key, and what was done.  recovery.md."""

from __future__ import annotations

import hmac
from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto.bind import bind
from custody.crypto.keyslots import recipient_id
from custody.crypto.quorum import Node, Person, Threshold
from custody.crypto.recoverykey import MAX_SET_ID
from custody.encoding import Blob, Bytes32, Digest, KeyId, Moment, Name, Record, Text
from custody.errors import Malformed
from custody.formats.envelope import Authored
from custody.formats.manifest import Core, SecretEnvelope
from custody.formats.policy import HpkeSuite, RecoveryKey

#: SLIP-0039: sixteen groups of sixteen.
MAX_GROUPS = 16
MAX_MEMBERS = 16

Place = Annotated[int, msgspec.Meta(ge=0, le=15)]


class ShareGroup(msgspec.Struct, frozen=True):
    """One group of a set: how many of which people."""

    threshold: int
    holders: tuple[str, ...]


class ShareSet(msgspec.Struct, frozen=True):
    """A tree of people as SLIP-0039 has it: groups, and how many of them."""

    threshold: int
    groups: tuple[ShareGroup, ...]


def share_set(tree: Node) -> ShareSet:
    """Read a tree as groups of a set; one that SLIP-0039 cannot say is `Malformed`.

    A tree of people alone is one group.  A person beside groups is a group of one.
    """
    if isinstance(tree, Person):
        raise Malformed("recovery: one person alone is no set of shares")
    if all(isinstance(child, Person) for child in tree.of):
        return ShareSet(1, (_group(tree),))
    if len(tree.of) > MAX_GROUPS:
        raise Malformed(f"recovery: more than {MAX_GROUPS} groups")
    return ShareSet(tree.k, tuple(map(_group, tree.of)))


def _group(node: Node) -> ShareGroup:
    if isinstance(node, Person):
        return ShareGroup(1, (node.principal,))
    holders = [child.principal for child in node.of if isinstance(child, Person)]
    if (
        len(holders) != len(node.of)
        or len(holders) > MAX_MEMBERS
        or not 1 <= node.k <= len(holders)
    ):
        raise Malformed(f"recovery: a group is 1 to {MAX_MEMBERS} people, and some of them")
    if node.k == 1 and len(holders) > 1:
        # SLIP-0039 would give all of them the same words.
        raise Malformed("recovery: any one of several people is no group, name one")
    return ShareGroup(node.k, tuple(holders))


class RecoveryShare(Record, frozen=True):
    """One share: whose it is, and what its words must hash to."""

    group: Place
    member: Place
    holder: Name
    salt: Bytes32
    digest: Digest

    def matches(self, words: str) -> bool:
        """Say whether these are the words; the comparison takes one time."""
        return hmac.compare_digest(share_digest(self.salt, words), self.digest)


def share_digest(salt: bytes, words: str) -> Digest:
    """Commit to a mnemonic: ``bind("recovery-share", salt, words)``, one space apart."""
    return bind("recovery-share", salt, " ".join(words.split()).encode()).hex()


class RecoveryRecord(Authored, frozen=True):
    """A custodian's statement that a recovery key was made and split.  Not checked yet."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:recovery-record:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Name
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    suite: HpkeSuite
    spki: Blob
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    set_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_SET_ID)]
    iteration_exponent: Place
    passphrase: bool
    among: Person | Threshold
    shares: Annotated[tuple[RecoveryShare, ...], msgspec.Meta(min_length=2, max_length=256)]
    made_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            groups = share_set(self.among).groups
        except Malformed as error:
            raise ValueError(error.reason) from error
        places = [
            (at, member, holder)
            for at, group in enumerate(groups)
            for member, holder in enumerate(group.holders)
        ]
        if [(s.group, s.member, s.holder) for s in self.shares] != places:
            raise ValueError("shares: not one for each person of among, in that order")

    @property
    def key_id(self) -> KeyId:
        """The recipient id that key slots name."""
        return recipient_id(self.spki, self.mlkem)

    def subject(self) -> tuple[str, Digest]:
        """Name the environment, epoch and key."""
        return f"{self.environment}/recovery/{self.epoch}", self.key_id

    def share(self, group: int, member: int) -> RecoveryShare | None:
        """Return what is known of the share at a place."""
        return next((s for s in self.shares if (s.group, s.member) == (group, member)), None)

    def in_policy(self, record: Digest) -> RecoveryKey:
        """Return what a policy says of this key; ``record`` is this statement's digest."""
        return RecoveryKey(
            epoch=self.epoch,
            suite=self.suite,
            spki=self.spki,
            mlkem=self.mlkem,
            set_id=self.set_id,
            among=self.among,
            record=record,
        )


class UsedShare(Record, frozen=True):
    """A share that was used, by its place."""

    group: Place
    member: Place
    holder: Name


class BreakGlass(Authored, frozen=True):
    """A custodian's statement that a bundle was opened by the recovery key and sealed anew.

    ``replacement`` is C of the new core.  The new envelope holds no secret that the old one did
    not: it is the same content key, for other people.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:break-glass:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Digest
    manifest: Digest
    replacement: Digest
    recovery: KeyId
    record: Digest
    shares: Annotated[tuple[UsedShare, ...], msgspec.Meta(min_length=2, max_length=256)]
    reason: Annotated[Text, msgspec.Meta(min_length=1)]
    opened_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [(share.group, share.member) for share in self.shares]
        if places != sorted(set(places)):
            raise ValueError("shares: not in order, each once")

    def subject(self) -> tuple[str, Digest]:
        """Name the manifest that was opened."""
        return "manifest", self.manifest


class Rewrapped(Record, frozen=True):
    """A core and its envelope, made in a ceremony, for their publisher to sign as a manifest."""

    kind: Literal["custody/rewrapped/v1"]
    core: Core
    envelope: SecretEnvelope


class SealedShare(Record, frozen=True):
    """One holder's words, sealed to a key in his token.  Nothing in it is signed."""

    kind: Literal["custody/sealed-share/v1"]
    record: Digest
    group: Place
    member: Place
    holder: Name
    suite: Literal["P256", "P384"]
    recipient: KeyId
    sealed: Annotated[bytes, msgspec.Meta(min_length=1, max_length=1024)]


def share_info(record: Digest, group: int, member: int, recipient: KeyId) -> bytes:
    """Bind a sealed share to its record, place and recipient."""
    place = bytes([group, member])
    return bind("sealed-share", bytes.fromhex(record), place, bytes.fromhex(recipient))
