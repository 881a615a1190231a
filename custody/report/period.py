"""What a page about a period shows: every release that anything happened to, by whom and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from custody.encoding import Digest, format_time
from custody.ops.account import Entry, account_of
from custody.ops.archive import Archive, Held, Unopened
from custody.ops.audit import AuditedRelease
from custody.ops.overdue import Overdue
from custody.report.lanes import LEFT, ROW, TOP, Caption, lane_captions, lane_heights
from custody.report.words import count, outcome
from custody.rules.endings import Outcome

#: More hosts, or officers, do not fit a picture; the tables have all.
MAX_LANES = 40
_LANE_CHARS = 18
_RIGHT, _FOOT, _WIDTH = 24, 34, 960
_TICKS = 6
#: What made a release possible is no act of it.
_BEFORE = ("policy.", "host.", "state.", "bundle.")
_BAR = 560
_SIGNS: dict[Outcome, str] = {
    "opened-and-burned": "opened",
    "opened-not-burned": "void",
    "opened-burn-not-provable": "void",
    "retained": "void",
    "never-opened": "failed",
    "failed": "failed",
    "approved": "yes",
    "open": "none",
    "refused": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """One release, and what happened to it in the period."""

    release: AuditedRelease
    file: str
    sound: bool
    sign: str
    at: datetime
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One release in the picture."""

    x: int
    y: int
    sign: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPicture:
    """A lane for each host, time from left to right; lengths are CSS pixels."""

    marks: tuple[Mark, ...]
    lanes: tuple[Caption, ...]
    ticks: tuple[Caption, ...]
    left_out: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficerRow:
    """What one officer answered in the period; the widths are of his bars, in pixels."""

    officer: str
    approved: int
    denied: int
    uncounted: int
    y: int
    approved_width: int
    denied_width: int
    uncounted_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The whole page."""

    pin: Digest
    since: datetime
    until: datetime
    rows: tuple[ReleaseRow, ...]
    outcomes: tuple[tuple[str, int], ...]
    hosts: HostPicture
    officers: tuple[OfficerRow, ...]
    overdue: tuple[Overdue, ...]
    unopened: tuple[Unopened, ...]

    @property
    def unsound(self) -> tuple[ReleaseRow, ...]:
        """The releases that do not hold."""
        return tuple(row for row in self.rows if not row.sound)

    @property
    def late(self) -> tuple[Overdue, ...]:
        """What lingered already at the end of the period."""
        return tuple(each for each in self.overdue if each.is_due(self.until))

    @property
    def sound(self) -> bool:
        """Whether every release holds, and every file could be read."""
        return not self.unsound and not self.unopened

    @property
    def officers_height(self) -> int:
        """How high the picture of the officers is."""
        return TOP + ROW * len(self.officers)


def period_of(
    archive: Archive,
    overdue: Sequence[Overdue],
    *,
    pin: Digest,
    since: datetime,
    until: datetime,
) -> Period:
    """Work out the page of a period: from ``since`` on, and before ``until``."""
    told = [(held, release, account_of(release)) for held, release in archive.releases()]
    inside = [
        (held, release, [entry for entry in entries if since <= _when(entry) < until])
        for held, release, entries in told
    ]
    seen: set[Digest] = set()
    rows, answers = [], []
    for held, release, entries in inside:
        own = [entry for entry in entries if not entry.act.startswith(_BEFORE)]
        if own and release.request not in seen:
            seen.add(release.request)
            rows.append(_row(held, release, own))
            answers += [e for e in own if e.act.startswith(("approval.", "denial."))]
    rows.sort(key=lambda row: (row.at, row.release.request))
    found = Counter(outcome(row.release) for row in rows)
    return Period(
        pin=pin,
        since=since,
        until=until,
        rows=tuple(rows),
        outcomes=tuple(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))),
        hosts=_hosts(rows, since, until),
        officers=tuple(_officers(answers)),
        overdue=tuple(overdue),
        unopened=archive.unopened,
    )


def _when(entry: Entry) -> datetime:
    return entry.there_by or entry.at


def _row(held: Held, release: AuditedRelease, entries: Sequence[Entry]) -> ReleaseRow:
    faults = [v.reason for v in release.verdicts if v.outcome == "fail"]
    faults += [v.reason for v in held.report.verdicts if v.outcome == "fail"]
    return ReleaseRow(
        release=release,
        file=held.name,
        sound=held.holds(release),
        sign=_SIGNS[release.outcome],
        at=max(_when(entry) for entry in entries),
        faults=tuple(faults),
    )


def _hosts(rows: Sequence[ReleaseRow], since: datetime, until: datetime) -> HostPicture:
    names = list(dict.fromkeys(sorted(row.release.host for row in rows)))
    heights = lane_heights(names[:MAX_LANES])
    span = max((until - since).total_seconds(), 1.0)
    wide = _WIDTH - LEFT - _RIGHT

    def across(at: datetime) -> int:
        part = min(max((at - since).total_seconds() / span, 0.0), 1.0)
        return LEFT + 12 + int(part * (wide - 24))

    bottom = TOP + ROW * max(len(heights), 1) - 6
    return HostPicture(
        marks=tuple(
            Mark(
                x=across(row.at),
                y=heights[row.release.host],
                sign=row.sign,
                title=f"{row.release.host}, {outcome(row.release)}, {format_time(row.at)}",
            )
            for row in rows
            if row.release.host in heights
        ),
        lanes=lane_captions(heights, longest=_LANE_CHARS),
        ticks=tuple(_ticks(since, until, bottom, across)),
        left_out=len(names) - len(heights),
        width=_WIDTH,
        height=bottom + _FOOT,
    )


def _ticks(
    since: datetime, until: datetime, y: int, across: Callable[[datetime], int]
) -> Iterator[Caption]:
    """Write dates along the foot of the picture."""
    step = (until - since) / (_TICKS - 1)
    form = "%d %b" if until - since >= timedelta(days=_TICKS) else "%d %b %H:%M"
    for n in range(_TICKS):
        at = since + step * n
        yield Caption(x=across(at), y=y + 18, text=f"{at:{form}}")


def _officers(answers: Sequence[Entry]) -> Iterator[OfficerRow]:
    """Count what each officer answered, the busiest first."""
    names = Counter(entry.who for entry in answers)
    most = max(names.values(), default=1)
    for place, (name, _) in enumerate(
        sorted(names.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_LANES]
    ):
        acts = Counter(entry.act for entry in answers if entry.who == name)
        approved, denied = acts["approval.given"], acts["denial.given"]
        uncounted = acts["approval.uncounted"] + acts["denial.uncounted"]
        yield OfficerRow(
            officer=name,
            approved=approved,
            denied=denied,
            uncounted=uncounted,
            y=TOP + ROW * place,
            approved_width=_BAR * approved // most,
            denied_width=_BAR * denied // most,
            uncounted_width=_BAR * uncounted // most,
        )


def told(period: Period) -> str:
    """Say in one sentence what came of a period."""
    if not period.rows:
        return "Nothing happened in this period that is shown here."
    words = "; ".join(f"{number} {name}" for name, number in period.outcomes)
    return f"{count(len(period.rows), 'release')}: {words}."
