"""Who stated what, in which order: a table, and a picture of it with a lane for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from custody.encoding import Digest
from custody.ops.audit import AuditedRelease
from custody.ops.exhibits import Exhibits
from custody.report.words import clipped, later, listed
from custody.rules.approvals import Tally
from custody.rules.verdicts import Verdict, passed

Kind = Literal["vouch", "seal", "ask", "yes", "no", "void", "opened", "failed", "burn"]
#: Who stands where: the people who make rules above those who use them.
_CUSTODIANS, _ENROLLERS = "custodians", "enrollers"
#: More do not fit a page; the table has all.
MAX_DRAWN = 60
_LANE_CHARS = 18
_LEFT, _COLUMN, _TOP, _ROW, _FOOT = 150, 62, 26, 34, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One statement: who made it, and when by its own word."""

    at: datetime
    who: str
    kind: Kind
    words: str
    note: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One event in the picture."""

    number: int
    x: int
    y: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A word somewhere in the picture."""

    x: int
    y: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All events in order, and the picture of the first of them; lengths are CSS pixels."""

    events: tuple[Event, ...]
    marks: tuple[Mark, ...]
    lanes: tuple[Place, ...]
    gaps: tuple[Place, ...]
    width: int
    height: int
    axis: int


def draw_timeline(release: AuditedRelease) -> Timeline:
    """Put the statements of a release in order, and each in its author's lane."""
    events = tuple(
        sorted(_events(release), key=lambda e: (e.at, _ORDER.index(e.kind), e.who, e.digest))
    )
    drawn = events[:MAX_DRAWN]
    first = [_CUSTODIANS, _ENROLLERS, release.publisher, release.host]
    names = [name for name in first if any(e.who == name for e in drawn)]
    names = list(dict.fromkeys([*names, *sorted({e.who for e in drawn} - set(names))]))
    heights = {name: _TOP + _ROW * place for place, name in enumerate(names)}
    axis = _TOP + _ROW * len(names) - 6
    return Timeline(
        events=events,
        marks=tuple(
            Mark(number=n + 1, x=_LEFT + _COLUMN * n + 16, y=heights[event.who], event=event)
            for n, event in enumerate(drawn)
        ),
        lanes=tuple(
            Place(x=0, y=y, text=clipped(name, _LANE_CHARS)) for name, y in heights.items()
        ),
        gaps=tuple(_gaps(drawn, axis + 30)),
        width=_LEFT + _COLUMN * max(len(drawn), 1),
        height=axis + _FOOT,
        axis=axis,
    )


_ORDER: tuple[Kind, ...] = (
    "vouch", "seal", "ask", "yes", "void", "no", "opened", "failed", "burn",
)  # fmt: skip


def _gaps(events: Sequence[Event], y: int) -> Iterator[Place]:
    """Say between two events how much later the second was, where it was."""
    for n, (before, after) in enumerate(pairwise(events)):
        if after.at > before.at:
            x = _LEFT + _COLUMN * n + 16 + _COLUMN // 2
            yield Place(x=x, y=y, text=f"+{later(after.at - before.at)}")


def _events(release: AuditedRelease) -> Iterator[Event]:
    exhibits = release.exhibits
    yield from _rules(exhibits)
    if exhibits.manifest is not None:
        yield Event(
            at=exhibits.manifest.predicate.core.sealed_at,
            who=release.publisher or "unknown publisher",
            kind="seal",
            words="sealed the bundle",
            note="",
            digest=exhibits.manifest.digest,
        )
    yield Event(
        at=exhibits.request.predicate.requested_at,
        who=release.host,
        kind="ask",
        words="asked for it",
        note="",
        digest=release.request,
    )
    if release.tally is not None:
        yield from _answers(release.tally)
    yield from _endings(release)


def _rules(exhibits: Exhibits) -> Iterator[Event]:
    for policy in exhibits.policies:
        yield Event(
            at=policy.predicate.issued_at,
            who=_CUSTODIANS,
            kind="vouch",
            words=f"issued policy version {policy.predicate.version}",
            note=_signed(exhibits, policy.digest),
            digest=policy.digest,
        )
    if exhibits.enrolment is not None:
        yield Event(
            at=exhibits.enrolment.predicate.enrolled_at,
            who=_ENROLLERS,
            kind="vouch",
            words=f"enrolled {exhibits.enrolment.predicate.host}",
            note=_signed(exhibits, exhibits.enrolment.digest),
            digest=exhibits.enrolment.digest,
        )
    if exhibits.golden is not None:
        golden = exhibits.golden.predicate
        yield Event(
            at=golden.issued_at,
            who=_ENROLLERS,
            kind="vouch",
            words=f"approved boot state {golden.name}, epoch {golden.epoch}",
            note=_signed(exhibits, exhibits.golden.digest),
            digest=exhibits.golden.digest,
        )


def _signed(exhibits: Exhibits, digest: Digest) -> str:
    found = exhibits.signers(digest)
    return f"signed by {listed(found.signers) or 'nobody known'}" if found else ""


def _answers(tally: Tally) -> Iterator[Event]:
    for approval in (*tally.counted, *tally.passed_over):
        counts = approval in tally.counted
        yield Event(
            at=approval.statement.predicate.approved_at,
            who=approval.officer or "unknown",
            kind="yes" if counts else "void",
            words="approved" if counts else "approved, not counted",
            note=""
            if counts
            else first_fault(approval.verdicts, "this officer is counted already"),
            digest=approval.statement.digest,
        )
    for denial in tally.denials:
        good = passed(denial.verdicts)
        said = denial.statement.predicate.reason
        yield Event(
            at=denial.statement.predicate.denied_at,
            who=denial.officer or "unknown",
            kind="no" if good else "void",
            words="denied" if good else "denied, not counted",
            note=f"“{said}”" if good else first_fault(denial.verdicts, ""),
            digest=denial.statement.digest,
        )


def _endings(release: AuditedRelease) -> Iterator[Event]:
    for receipt in release.exhibits.receipts:
        said = receipt.predicate
        yield Event(
            at=said.finished_at,
            who=release.host,
            kind="failed" if said.outcome == "failed" else "opened",
            words={"opened": "opened it", "retained": "opened it and kept the key"}.get(
                said.outcome, "did not open it"
            ),
            note=said.reason,
            digest=receipt.digest,
        )
    for burn in release.exhibits.burns:
        yield Event(
            at=burn.predicate.burned_at,
            who=release.host,
            kind="burn",
            words="burned the key",
            note="",
            digest=burn.digest,
        )


def first_fault(verdicts: Sequence[Verdict], otherwise: str) -> str:
    """Say the first thing that failed, or something else where nothing did."""
    return next((v.reason for v in verdicts if v.outcome == "fail"), otherwise)
