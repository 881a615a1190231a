"""A ceremony as one page to print: every step, who, by which token, digests and their words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from custody.encoding import Digest
from custody.formats.ceremony import Seat
from custody.formats.envelope import Signature
from custody.formats.transcript import Begun, Closed, Done, Line, Opened, UsedToken
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.ceremony_steps import words_of
from custody.ops.spoken import spoken
from custody.report.html import render
from custody.rules.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestView:
    """A digest to compare, with its words, a line for every eight digits."""

    what: str
    digest: Digest
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonView:
    """Somebody at the table, his token if it was used, and how many keys in it are attested."""

    seat: Seat
    token: UsedToken | None
    attested: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureView:
    """Who signed a record; ``who`` is a key where nobody's is known."""

    who: str
    key: Digest
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step that was done."""

    number: int
    words: str
    done: Done
    begun: tuple[datetime, ...]
    at: datetime
    digest: Digest
    told: tuple[DigestView, ...]
    signatures: tuple[SignatureView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyPage:
    """The whole page."""

    judged: JudgedCeremony
    title: str
    program: str
    people: tuple[PersonView, ...]
    begun: datetime
    steps: tuple[StepView, ...]
    script: DigestView
    closed: DigestView | None
    signatures: tuple[SignatureView, ...]
    policy: DigestView | None

    @property
    def word(self) -> str:
        """The verdict.  Where nothing that people wrote down was compared, no more is known than
        that the files are of one ceremony, whoever's.
        """
        if not self.judged.sound:
            return "Not sound"
        pinned = any(
            v.check == "ceremony.pin" and v.outcome == "pass" for v in self.judged.verdicts
        )
        return "Sound" if pinned else "Its files agree"

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """The checks that do not hold."""
        return tuple(v for v in self.judged.verdicts if v.outcome == "fail")


def render_ceremony(judged: JudgedCeremony) -> bytes:
    """Write the page of a ceremony (UTF-8)."""
    return render("ceremony.html.j2", page=page_of(judged))


def page_of(judged: JudgedCeremony) -> CeremonyPage:
    """Work out everything the page shows."""
    first, last = judged.lines[0].record, judged.lines[-1]
    opened = first.event if isinstance(first.event, Opened) else None
    closed = isinstance(last.record.event, Closed)
    policy = judged.progress.policy
    return CeremonyPage(
        judged=judged,
        title=judged.script.title,
        program=opened.program if opened else "not said",
        people=tuple(_people(judged)),
        begun=first.at,
        steps=tuple(_steps(judged)),
        script=_digest("the script", judged.held.digest),
        closed=_digest("the last record", last.digest) if closed else None,
        signatures=_signatures(judged, last) if closed else (),
        policy=None if policy is None else _digest("policy version 1", policy),
    )


def _people(judged: JudgedCeremony) -> Iterator[PersonView]:
    events = (line.record.event for line in judged.lines)
    attested = {key.key for event in events if isinstance(event, Done) for key in event.attested}
    for seat in judged.script.people:
        keys = {key.key_id for key in judged.progress.keys if key.person == seat.name}
        yield PersonView(
            seat=seat,
            token=judged.progress.tokens.get(seat.name),
            attested=len(keys & attested),
        )


def _steps(judged: JudgedCeremony) -> Iterator[StepView]:
    steps, begun = judged.script.steps, list[datetime]()
    for line in judged.lines:
        event = line.record.event
        if isinstance(event, Begun):
            begun.append(line.record.at)
        if not isinstance(event, Done):
            continue
        # What does not fit the script is shown as it says itself; the verdict says that it fails.
        known = 1 <= event.step <= len(steps)
        yield StepView(
            number=event.step,
            words=words_of(judged.script, steps[event.step - 1]) if known else event.do,
            done=event,
            begun=tuple(begun),
            at=line.record.at,
            digest=line.digest,
            told=tuple(_digest(told.what, told.digest) for told in event.told),
            signatures=_signatures(judged, line),
        )
        begun = []


def _signatures(judged: JudgedCeremony, line: Line) -> tuple[SignatureView, ...]:
    names = {key.key_id: key.person for key in judged.progress.keys if key.use == "sign"}

    def view(signature: Signature) -> SignatureView:
        return SignatureView(
            who=names.get(signature.keyid, "a key that was not enrolled here"),
            key=signature.keyid,
            signature=signature.sig.hex(),
        )

    return tuple(map(view, line.signatures))


def _digest(what: str, digest: Digest) -> DigestView:
    return DigestView(what=what, digest=digest, words=spoken(digest))
