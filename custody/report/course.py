"""What happened in a period, all of it, in order: ceremonies, rules, people, bundles, releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from custody.encoding import Digest
from custody.formats.transcript import Closed
from custody.ops.account import Entry
from custody.ops.audit import AuditedRelease
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.ceremony_steps import words_of
from custody.ops.chronicle import Chronicle, Gap, faults_of, is_tied
from custody.ops.deeds import Deed, Matter, Place
from custody.ops.spoken import spoken
from custody.report.lanes import Act, TimePicture, draw_times
from custody.report.words import at as written
from custody.report.words import count, outcome

#: What is shown of the log: it is there; some or all of it is not; nothing asks for one.
Logged = Literal["yes", "no", "none"]
_CEREMONIES: Final = "Ceremonies"
_RELEASES: Final = "Releases"
_LANES: Mapping[Matter, str] = {
    "recovery": "Recovery",
    "policy": "Policies",
    "person": "People and tokens",
    "token": "People and tokens",
    "host": "Hosts",
    "bundle": "Bundles",
    "backup": "Recovery",
    "ceremony": _CEREMONIES,
}
_ORDER = (_CEREMONIES, "Policies", "People and tokens", "Hosts", "Bundles", _RELEASES, "Recovery")
_SHORT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """One release, and what happened to it in the period."""

    release: AuditedRelease
    file: str
    sound: bool
    sign: str
    at: datetime
    faults: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened.  ``fault``: why it is not believed.  ``place``: where it is logged,
    in words.
    """

    at: datetime
    lane: str
    sign: str
    who: tuple[str, ...]
    words: str
    details: tuple[str, ...]
    fault: str
    logged: Logged
    place: str
    vouched: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Aloud:
    """A digest that people wrote down, with its words."""

    what: str
    digest: Digest
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyView:
    """A ceremony in short; the record of it has a page of its own."""

    judged: JudgedCeremony
    at: datetime
    ended: datetime
    steps: tuple[str, ...]
    aloud: tuple[Aloud, ...]
    tied: bool
    """Whether it is shown to be the one that made the policy everything is judged by."""
    faults: tuple[str, ...]
    """What does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Everything of a period in order, and what nothing here can show."""

    lines: tuple[Line, ...]
    picture: TimePicture
    ceremonies: tuple[CeremonyView, ...]
    logs: tuple[str, ...]
    gaps: tuple[Gap, ...]
    unknown: tuple[str, ...]

    @property
    def unlogged(self) -> int:
        """How many lines are not shown to be logged, where a policy names a log."""
        return sum(line.logged == "no" for line in self.lines)

    @property
    def doubted(self) -> int:
        """How many lines are not believed."""
        return sum(bool(line.fault) for line in self.lines)


def course_of(
    chronicle: Chronicle,
    rows: Sequence[ReleaseRow],
    ceremonies: Sequence[JudgedCeremony],
    *,
    since: datetime,
    until: datetime,
) -> Course:
    """Put everything of a period in order; the chronicle tells of ``ceremonies`` too."""
    held = tuple(_ceremony(judged, chronicle) for judged in ceremonies)
    lines = [
        *(_told(deed, chronicle) for deed in chronicle.deeds),
        *(_released(row, chronicle) for row in rows),
    ]
    inside = sorted(
        # A release that something happened to in a period may have been asked for before.
        (line for line in lines if line.lane == _RELEASES or since <= line.at < until),
        key=lambda line: (line.at, _ORDER.index(line.lane), line.words),
    )
    acts = [
        Act(lane=line.lane, at=line.at, sign=line.sign, title=f"{written(line.at)}: {line.words}")
        for line in inside
    ]
    lanes = [lane for lane in _ORDER if any(act.lane == lane for act in acts)]
    return Course(
        lines=tuple(inside),
        picture=draw_times(acts, lanes, since=since, until=until, most=len(_ORDER)),
        ceremonies=held,
        logs=chronicle.logs,
        gaps=tuple(gap for gap in chronicle.gaps if gap.since < until and gap.until > since),
        unknown=tuple(_unknown(chronicle, inside, held)),
    )


def _told(deed: Deed, chronicle: Chronicle) -> Line:
    fault = "void" if deed.fault else deed.sign
    return Line(
        at=deed.at,
        lane=_LANES[deed.matter],
        sign=fault,
        who=deed.who,
        words=deed.words,
        details=deed.details,
        fault=deed.fault,
        # A revocation list is no statement, and a log has none.
        logged=_logged(deed.place, chronicle) if deed.statement else "none",
        place=_place(deed.place),
        vouched=f"there by {written(deed.there_by)}, {deed.vouched}" if deed.there_by else "",
    )


def _logged(place: Place | None, chronicle: Chronicle) -> Logged:
    if place is not None:
        return "yes"
    return "no" if chronicle.logs else "none"


def _place(place: Place | None) -> str:
    return "" if place is None else f"entry {place.index}"


def _released(row: ReleaseRow, chronicle: Chronicle) -> Line:
    """Tell a release as one line, by the moment it was asked for, with all that came of it."""
    release, request = row.release, row.release.exhibits.request.predicate
    own = {release.request, *(entry.statement for entry in row.entries if not _is_word(entry))}
    there = [digest for digest in own if digest in chronicle.places]
    logged: Logged = "none"
    if chronicle.logs:
        logged = "yes" if len(there) == len(own) else "no"
    told = f"{len(there)} of {count(len(own), 'statement')}" if chronicle.logs else ""
    return Line(
        at=min(row.at, request.requested_at) if row.entries else row.at,
        lane=_RELEASES,
        sign=row.sign if row.sound else "void",
        who=(release.host,),
        words=f"{release.host} asked for {release.manifest[:_SHORT]}…: {outcome(release)}",
        details=tuple(_acts(row)),
        fault="" if row.sound else next(iter(row.faults), "its quorum was not complete"),
        logged=logged,
        place=told,
        vouched="",
    )


def _is_word(entry: Entry) -> bool:
    # What the log says of a release is the log's, and in no log.
    return entry.act == "release.logged"


def _acts(row: ReleaseRow) -> Iterator[str]:
    for entry in row.entries:
        if entry.act == "request.made":
            continue
        note = f": {entry.note}" if entry.note else ""
        yield f"{entry.at:%Y-%m-%d} {entry.who} {entry.words}{note}"


def _ceremony(judged: JudgedCeremony, chronicle: Chronicle) -> CeremonyView:
    last, policy = judged.lines[-1], judged.progress.policy
    aloud = []
    if isinstance(last.record.event, Closed):
        aloud.append(_aloud("Its last record, which everybody signed", last.digest))
    if policy is not None:
        aloud.append(_aloud("The policy that came of it", policy))
    return CeremonyView(
        judged=judged,
        at=judged.lines[0].record.at,
        ended=last.record.at,
        steps=tuple(words_of(judged.script, step) for step in judged.script.steps),
        aloud=tuple(aloud),
        tied=is_tied(judged, chronicle.policies),
        faults=faults_of(judged, chronicle.policies),
    )


def _aloud(what: str, digest: Digest) -> Aloud:
    return Aloud(what=what, digest=digest, words=spoken(digest))


def _unknown(
    chronicle: Chronicle, lines: Sequence[Line], held: Sequence[CeremonyView]
) -> Iterator[str]:
    """Say what the files of an archive cannot show, as far as it bears on what is told here."""
    yield "Whatever nobody stated, or nobody brought, is not here."
    if chronicle.logs:
        yield (
            "What a log has and no file here shows, the log tells: "
            "custody auditor overdue ARCHIVE --log LOG."
        )
    else:
        yield "No policy here names a log: a statement that was left out leaves no trace."
    if not any(line.vouched for line in lines):
        yield (
            "No time is vouched for: the order of the lines, and their dates, are what their "
            "authors claim."
        )
    if held:
        yield (
            "Who sat at a ceremony's table, and whether the tokens were what they said they were: "
            "what people wrote down and signed that day is all there is."
        )
    if any(line.lane == "Recovery" for line in lines):
        yield (
            "Whether a share on paper was read, copied or lost; holders can check their own: "
            "custody custodian check-share."
        )
        yield (
            "Whether and when a key was brought back from its backup: restoring makes no "
            "statement. One key in two tokens, by its check value, is told above."
        )
    if any(line.sign in ("lost", "minus") for line in lines):
        yield (
            "Where a lost token is, and whether who left still has his: "
            "what was sealed to them before opens still."
        )
    if any(line.lane == _RELEASES and line.sign == "opened" for line in lines):
        yield "What a host did with a model after it had opened it."
