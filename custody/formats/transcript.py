"""What was done at a table: a chain of records, signed by who took part.  Format: transcript.md.

A transcript is lines of canonical JSON.  Every record names the digest of the one before it, and
the first the script's; signatures are over the record as an in-toto statement (envelope.md), lie
beside it, and are not checked here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import msgspec

from custody.encoding import Blob, Count, Digest, KeyId, Moment, Name, Record, Text, decode, encode
from custody.encoding import key_id as digest_of
from custody.errors import Malformed
from custody.formats.ceremony import MAX_PEOPLE, FileName, Words
from custody.formats.envelope import MAX_SIGNATURES, Signature, statement_digest
from custody.formats.policy import TokenClass
from custody.formats.vendor import KeyAttestation

MAX_TRANSCRIPT_BYTES = 8 << 20
MAX_LINES = 1024
_MAX_LINE_BYTES = 4 << 20

KeyUse = Literal["sign", "share", "ca", "log", "kek", "wrapping"]


class UsedToken(Record, frozen=True):
    """A token as it described itself.  None of it is proven."""

    person: Name
    label: Text
    manufacturer: Text
    model: Text
    serial: Text
    firmware: Text
    library: Text
    profile: Text
    token_class: TokenClass

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What tells this token from others."""
        return self.label, self.manufacturer, self.model, self.serial


class FoundObject(Record, frozen=True):
    """An object that lay in a token before a step used it."""

    person: Name
    kind: Literal["private", "secret", "public", "certificate", "data", "other"]
    label: Text
    id: Annotated[str, msgspec.Meta(max_length=512, pattern=r"\A(?:[0-9a-f]{2})*\Z")]


class MadeKey(Record, frozen=True):
    """A key that a step made, or found to be made already, and used.

    A wrapping key is the public half that the token trusts.
    A key-encryption key has no public half: ``check``, its check value, tells it from others.
    """

    person: Name
    use: KeyUse
    label: Text
    id: Annotated[str, msgspec.Meta(max_length=512, pattern=r"\A(?:[0-9a-f]{2})*\Z")]
    spki: Blob | None
    check: Digest | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.spki is None) != (self.use == "kek") or (self.check is None) == (
            self.spki is None
        ):
            raise ValueError("spki, check: the one that keys of this use have")

    @property
    def key_id(self) -> KeyId:
        """Hex SHA-256 of the SPKI; the check value of a key-encryption key."""
        return self.check or digest_of(self.spki or b"")


class NamedFile(Record, frozen=True):
    """A file that a step wrote or read, by its name in the ceremony's folder."""

    name: FileName
    sha256: Digest


class Told(Record, frozen=True):
    """A digest that was read aloud, and of what it is."""

    what: Words
    digest: Digest


class Opened(Record, frozen=True, tag_field="event", tag="opened"):
    """The ceremony began: what for, who sits there, by which program."""

    title: Words
    people: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MAX_PEOPLE)]
    program: Words


class Begun(Record, frozen=True, tag_field="event", tag="begun"):
    """A step was begun.  One that was begun twice was interrupted."""

    step: Count


class Done(Record, frozen=True, tag_field="event", tag="done"):
    """A step was done.  ``asked``: the people there were asked at the terminal, and said yes.

    ``attested`` are the keys that a vendor attests, in the order of the admissions.
    """

    step: Count
    do: Name
    asked: bool
    tokens: Annotated[tuple[UsedToken, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
    found: Annotated[tuple[FoundObject, ...], msgspec.Meta(max_length=4096)]
    keys: Annotated[tuple[MadeKey, ...], msgspec.Meta(max_length=16)]
    attested: Annotated[tuple[KeyAttestation, ...], msgspec.Meta(max_length=1536)]
    files: Annotated[tuple[NamedFile, ...], msgspec.Meta(max_length=256)]
    told: Annotated[tuple[Told, ...], msgspec.Meta(max_length=128)]
    said: Annotated[tuple[Words, ...], msgspec.Meta(max_length=128)]


class Closed(Record, frozen=True, tag_field="event", tag="closed"):
    """The ceremony is over.  ``policy`` is the digest of the policy that it made, if it did."""

    policy: Digest | None
    files: Annotated[tuple[NamedFile, ...], msgspec.Meta(max_length=1024)]


Event = Opened | Begun | Done | Closed


class CeremonyRecord(Record, frozen=True):
    """One record.  ``previous`` is the digest of the one before, of the script for number 0."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:ceremony-record:v1"
    MANY_SIGNERS: ClassVar[bool] = True

    environment: Name
    script: Digest
    number: Count
    previous: Digest
    at: Moment
    event: Event

    def subject(self) -> tuple[str, Digest]:
        """Name the environment, the record's number and what it follows."""
        return f"{self.environment}/ceremony/{self.number}", self.previous


class Line(Record, frozen=True):
    """A record, and who signed it.  Nothing in it is verified yet."""

    record: CeremonyRecord
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=MAX_SIGNATURES)]

    def __post_init__(self) -> None:
        super().__post_init__()
        keyids = [signature.keyid for signature in self.signatures]
        if keyids != sorted(set(keyids)):
            raise ValueError("signatures: not one per signer in keyid order")

    @property
    def digest(self) -> Digest:
        """The digest of the record as a statement: signatures are no part of it."""
        return statement_digest(self.record)


def decode_transcript(data: bytes) -> tuple[Line, ...]:
    """Read a transcript: one line or more, each ended, each in its one form."""
    if len(data) > MAX_TRANSCRIPT_BYTES:
        raise Malformed(f"larger than the {MAX_TRANSCRIPT_BYTES} bytes allowed")
    if data.count(b"\n") > MAX_LINES:
        raise Malformed(f"more than {MAX_LINES} lines")
    if not data.endswith(b"\n"):
        raise Malformed("does not end with a whole line")
    lines = []
    for number, line in enumerate(data[:-1].split(b"\n"), 1):
        try:
            lines.append(decode(Line, line, max_bytes=_MAX_LINE_BYTES))
        except Malformed as error:
            raise Malformed(f"line {number}: {error.reason}") from error
    return tuple(lines)


def encode_transcript(lines: Iterable[Line]) -> bytes:
    """Write a transcript."""
    return b"".join(encode(line) + b"\n" for line in lines)
