"""What readers, writers and witnesses of logs remember.  Format: checkpoint.md, "State"."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.encoding import Blob, Bytes32, Moment, Record, Text
from custody.formats.note import MAX_NOTE_BYTES

#: More entries in one batch than a day brings.
MAX_BATCH = 1 << 16
MAX_PENDING_BYTES = 64 << 20
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Origin = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
NoteBytes = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_NOTE_BYTES)]


class Pending(Record, frozen=True):
    """The log's intent: the entries that follow the tree of ``size`` entries and head ``root``.

    Whoever finds it carries it out, and all who do write the same bytes.
    """

    kind: Literal["custody/log-pending/v1"]
    origin: Origin
    size: Size
    root: Bytes32
    entries: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_BATCH)]


class LogIdentity(Record, frozen=True):
    """The log a home writes: its origin, and its key in which token."""

    kind: Literal["custody/log/v1"]
    origin: Origin
    token: Text
    spki: Blob


class SignedHead(Record, frozen=True):
    """The newest head a log has signed or is about to sign."""

    kind: Literal["custody/log-head/v1"]
    origin: Origin
    size: Size
    root: Bytes32


class LogClock(Record, frozen=True):
    """The latest time at which a log was written, by its own clock."""

    kind: Literal["custody/log-clock/v1"]
    at: Moment


class SeenLog(Record, frozen=True):
    """The newest checkpoint of one log that was believed, or cosigned: the whole note."""

    origin: Origin
    note: NoteBytes


class SeenLogs(Record, frozen=True):
    """One checkpoint for each log, in the order of their origins."""

    kind: Literal["custody/logs-seen/v1"]
    logs: Annotated[tuple[SeenLog, ...], msgspec.Meta(max_length=1024)]

    def of(self, origin: str) -> SeenLog | None:
        """Return what is remembered of a log."""
        return next((log for log in self.logs if log.origin == origin), None)

    def with_log(self, seen: SeenLog) -> SeenLogs:
        """Return this memory with one log's checkpoint replaced."""
        others = (log for log in self.logs if log.origin != seen.origin)
        kept = sorted((*others, seen), key=lambda log: log.origin)
        return SeenLogs(kind=self.kind, logs=tuple(kept))
