"""What is written into the log for one statement.  Format: checkpoint.md, "Entries"."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from custody.encoding import Digest, Record, decode, encode
from custody.errors import Malformed
from custody.formats.envelope import Envelope, predicate_type

MAX_ENTRY_BYTES = 256
_PREDICATE = re.compile(r"urn:custody:([a-z][a-z-]{0,31}):v[0-9]+", re.ASCII)

#: What kind of statement: the word in its predicate type.
Kind = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z-]{0,31}\Z")]


class LogEntry(Record, frozen=True):
    """One logged statement: its digest and kind, and no name, so that the log may be public."""

    digest: Digest
    kind: Kind
    v: Literal[1] = 1

    def encode(self) -> bytes:
        """Write the entry's bytes, which the log hashes."""
        return encode(self)


def entry_of(envelope: Envelope) -> LogEntry:
    """Make the entry of a statement.

    One statement has one entry, whoever logs it: neither signatures nor ``keyid`` are in it.
    """
    claimed = predicate_type(envelope)
    match = _PREDICATE.fullmatch(claimed)
    if match is None:
        raise Malformed(f"holds {claimed[:80]!r}, which is not logged")
    return LogEntry(digest=envelope.digest(), kind=match[1])


def decode_entry(data: bytes) -> LogEntry:
    """Read an entry."""
    return decode(LogEntry, data, max_bytes=MAX_ENTRY_BYTES)
