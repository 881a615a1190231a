"""What a page about a period shows: every release that anything happened to, by whom and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from custody.encoding import Digest, format_time
from custody.ops.account import Entry, account_of, within
from custody.ops.archive import Archive, Held, Unopened
from custody.ops.audit import AuditedRelease
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.chronicle import chronicle_of
from custody.ops.overdue import Overdue
from custody.report.course import CeremonyView, Course, ReleaseRow, course_of
from custody.report.lanes import ROW, TOP, Act, TimePicture, draw_times
from custody.report.words import count, outcome
from custody.rules.endings import Outcome

#: More hosts, or officers, do not fit a picture; the tables have all.
MAX_LANES = 40
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
    hosts: TimePicture
    course: Course
    officers: tuple[OfficerRow, ...]
    overdue: tuple[Overdue, ...]
    unopened: tuple[Unopened, ...]

    @property
    def unsound(self) -> tuple[ReleaseRow, ...]:
        """The releases that do not hold."""
        return tuple(row for row in self.rows if not row.sound)

    @property
    def broken_ceremonies(self) -> tuple[CeremonyView, ...]:
        """The ceremonies that do not hold."""
        return tuple(view for view in self.course.ceremonies if view.faults)

    @property
    def late(self) -> tuple[Overdue, ...]:
        """What lingered already at the end of the period."""
        return tuple(each for each in self.overdue if each.is_due(self.until))

    @property
    def sound(self) -> bool:
        """Whether every release and ceremony holds, and every file could be read."""
        return not (self.unsound or self.unopened or self.broken_ceremonies)

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
    ceremonies: Sequence[JudgedCeremony] = (),
    tsa_roots: Sequence[bytes] = (),
) -> Period:
    """Work out the page of a period: from ``since`` on, and before ``until``.

    It tells of the releases, and of all else that the archive's files show of the environment.
    """
    documents = archive.documents()
    chronicle = chronicle_of(
        documents, pin=pin, now=until, tsa_roots=tsa_roots, ceremonies=ceremonies
    )
    told = [(held, release, account_of(release)) for held, release in archive.releases()]
    inside = [
        (
            held,
            release,
            [e for e in entries if within(e.at, e.there_by, since=since, until=until)],
        )
        for held, release, entries in told
    ]
    seen: set[Digest] = set()
    rows, answers = [], []
    for held, release, entries in inside:
        own = [entry for entry in entries if not entry.act.startswith(_BEFORE)]
        if own and release.request not in seen:
            seen.add(release.request)
            last = max(_when(entry, since, until) for entry in own)
            rows.append(_row(held, release, own, last))
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
        course=course_of(chronicle, rows, ceremonies, since=since, until=until),
        officers=tuple(_officers(answers)),
        overdue=tuple(overdue),
        unopened=archive.unopened,
    )


def _when(entry: Entry, since: datetime, until: datetime) -> datetime:
    """Say when an act of a period was: by who vouches for it, or by its author, in that period."""
    seen = (entry.there_by or entry.at, entry.at)
    return next((moment for moment in seen if since <= moment < until), since)


def _row(
    held: Held, release: AuditedRelease, entries: Sequence[Entry], last: datetime
) -> ReleaseRow:
    faults = [v.reason for v in release.verdicts if v.outcome == "fail"]
    faults += [v.reason for v in held.report.verdicts if v.outcome == "fail"]
    return ReleaseRow(
        release=release,
        file=held.name,
        sound=held.holds(release),
        sign=_SIGNS[release.outcome],
        at=last,
        entries=tuple(entries),
        faults=tuple(faults),
    )


def _hosts(rows: Sequence[ReleaseRow], since: datetime, until: datetime) -> TimePicture:
    acts = [
        Act(
            lane=row.release.host,
            at=row.at,
            sign=row.sign,
            title=f"{row.release.host}, {outcome(row.release)}, {format_time(row.at)}",
        )
        for row in rows
    ]
    names = sorted({act.lane for act in acts})
    return draw_times(acts, names, since=since, until=until, most=MAX_LANES)


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
        other = "No release" if period.course.lines else "Nothing"
        return f"{other} happened in this period that is shown here."
    words = "; ".join(f"{number} {name}" for name, number in period.outcomes)
    return f"{count(len(period.rows), 'release')}: {words}."
