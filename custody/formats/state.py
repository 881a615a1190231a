"""What an actor remembers between commands.  Format: state.md, version 1.

One private file per actor.  It is the only thing judged files are held against: the pin, and the
newest versions, numbers and counts ever seen, so that nobody can offer yesterday's truth today.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.crypto.keyslots import recipient_id
from custody.encoding import Count, Digest, KeyId, Moment, Name, Record, Text, TpmName
from custody.formats.goldenset import Epoch
from custody.formats.policy import Role, SuiteName
from custody.formats.request import U32


class CrlMemory(Record, frozen=True):
    """The newest revocation list of one authority."""

    authority: KeyId
    number: Count


class GoldenMemory(Record, frozen=True):
    """The oldest epoch still good of the golden sets of one name."""

    name: Name
    oldest: Epoch


class EnrolmentMemory(Record, frozen=True):
    """What was last seen of one EK's enrolment.

    ``epoch`` is its newest record's, and ``record`` what that one says (`record_identity`); 0 and
    None where none was.  Records up to ``retired`` were retired, the last of them at
    ``retired_at``; 0 and None where none was.
    """

    ek_spki: Digest
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    record: Digest | None
    retired: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    retired_at: Moment | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.retired == 0) != (self.retired_at is None):
            raise ValueError("retired: an epoch and a time, or neither")
        if (self.epoch == 0) != (self.record is None):
            raise ValueError("record: an epoch and a digest, or neither")


class KeyMemory(Record, frozen=True):
    """A host key H once seen, and the request it came in."""

    name: TpmName
    request: Digest


class HostMemory(Record, frozen=True):
    """What was last seen of one host's TPM."""

    ek_spki: Digest
    reset_count: U32
    keys: Annotated[tuple[KeyMemory, ...], msgspec.Meta(max_length=100_000)]


class Memory(Record, frozen=True):
    """Everything an actor holds judged files against."""

    kind: Literal["custody/memory/v1"]
    pin: Digest
    environment: Digest
    policy: Digest
    policy_version: Count
    crls: tuple[CrlMemory, ...]
    golden_sets: tuple[GoldenMemory, ...]
    hosts: tuple[HostMemory, ...]
    enrolments: tuple[EnrolmentMemory, ...]

    def oldest_epoch(self, name: str) -> int:
        """Return the oldest epoch of the golden sets of that name that is not known to be over."""
        return next((known.oldest for known in self.golden_sets if known.name == name), 1)

    def enrolment(self, ek_spki: Digest) -> EnrolmentMemory | None:
        """Return what is remembered of the enrolment of that endorsement key."""
        return next((known for known in self.enrolments if known.ek_spki == ek_spki), None)

    def host(self, ek_spki: Digest) -> HostMemory | None:
        """Return what is remembered of the host with that endorsement key."""
        return next((host for host in self.hosts if host.ek_spki == ek_spki), None)


class ShareIdentity(Record, frozen=True):
    """One of an actor's share keys; ``mlkem_seed_file`` is a file name in his home."""

    suite: SuiteName
    spki: bytes
    mlkem: bytes | None
    mlkem_seed_file: str | None

    @property
    def key_id(self) -> KeyId:
        """What policies and key slots name it by."""
        return recipient_id(self.spki, self.mlkem)


class Identity(Record, frozen=True):
    """Who uses this home, and by which keys in which token."""

    kind: Literal["custody/identity/v1"]
    principal: Name
    display: Text
    role: Role
    token: Text
    signing_spki: bytes
    shares: tuple[ShareIdentity, ...]
