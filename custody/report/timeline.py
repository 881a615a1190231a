"""Who stated what, in which order: a table, and a picture of it with a lane for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from custody.encoding import Digest
from custody.ops.account import CUSTODIANS, ENROLLERS, Act, Entry, account_of
from custody.ops.audit import AuditedRelease
from custody.report.lanes import LEFT, ROW, TOP, Caption, lane_captions, lane_heights
from custody.report.words import later

Kind = Literal["vouch", "seal", "ask", "yes", "no", "void", "log", "opened", "failed", "burn"]
_KINDS: dict[Act, Kind] = {
    "policy.issued": "vouch",
    "host.enrolled": "vouch",
    "state.approved": "vouch",
    "bundle.sealed": "seal",
    "request.made": "ask",
    "consent.given": "yes",
    "consent.uncounted": "void",
    "approval.given": "yes",
    "approval.uncounted": "void",
    "denial.given": "no",
    "denial.uncounted": "void",
    "release.logged": "log",
    "release.opened": "opened",
    "release.retained": "opened",
    "release.failed": "failed",
    "key.burned": "burn",
    "key.forgotten": "burn",
}
#: More do not fit a page; the table has all.
MAX_DRAWN = 60
#: So many signs lie beside each other in the width of a phone.
_MOST_ABREAST = 12
_LANE_CHARS = 16
_COLUMN, _FOOT = 62, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One statement: who made it, and when by its own word."""

    at: datetime
    who: str
    kind: Kind
    words: str
    note: str
    digest: Digest
    there_by: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One event in the picture."""

    number: int
    x: int
    y: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All events in order, and the picture of the first of them; lengths are CSS pixels."""

    events: tuple[Event, ...]
    marks: tuple[Mark, ...]
    lanes: tuple[Caption, ...]
    gaps: tuple[Caption, ...]
    width: int
    height: int
    axis: int

    @property
    def fits(self) -> bool:
        """Whether its signs are few enough to lie beside each other on a phone."""
        return len(self.marks) <= _MOST_ABREAST


def draw_timeline(release: AuditedRelease) -> Timeline:
    """Put the statements of a release in order, and each in its author's lane."""
    events = tuple(_event(entry) for entry in account_of(release))
    drawn = events[:MAX_DRAWN]
    first = [CUSTODIANS, ENROLLERS, release.publisher, release.host]
    names = [name for name in first if any(e.who == name for e in drawn)]
    names = list(dict.fromkeys([*names, *sorted({e.who for e in drawn} - set(names))]))
    heights = lane_heights(names)
    axis = TOP + ROW * len(names) - 6
    return Timeline(
        events=events,
        marks=tuple(
            Mark(number=n + 1, x=LEFT + _COLUMN * n + 16, y=heights[event.who], event=event)
            for n, event in enumerate(drawn)
        ),
        lanes=lane_captions(heights, longest=_LANE_CHARS),
        gaps=tuple(_gaps(drawn, axis + 30)),
        width=LEFT + _COLUMN * max(len(drawn), 1),
        height=axis + _FOOT,
        axis=axis,
    )


def _gaps(events: Sequence[Event], y: int) -> Iterator[Caption]:
    """Say between two events how much later the second was, where it was."""
    for n, (before, after) in enumerate(pairwise(events)):
        if after.at > before.at:
            x = LEFT + _COLUMN * n + 16 + _COLUMN // 2
            yield Caption(x=x, y=y, text=f"+{later(after.at - before.at)}")


def _event(entry: Entry) -> Event:
    return Event(
        at=entry.at,
        who=entry.who,
        kind=_KINDS[entry.act],
        words=entry.words,
        note=entry.note,
        digest=entry.statement,
        there_by=entry.there_by,
    )
