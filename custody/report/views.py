"""An audit as a page shows it: worked out here, so that the templates only write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from custody.encoding import Digest
from custody.formats.contents import Contents
from custody.ops.account import first_fault
from custody.ops.audit import AuditedRelease, AuditReport
from custody.ops.exhibits import HeldCertificate, JudgedKey, Register
from custody.report.logged import LogView, view_log
from custody.report.timeline import Timeline, draw_timeline
from custody.report.tree import TreePicture, draw_trees
from custody.rules.verdicts import Verdict, passed

#: How many components that are as expected are named on either side of those that are not.
_AROUND = 3

_SECTIONS = (
    ("case", "The case"),
    ("policy", "Policy"),
    ("manifest", "Bundle"),
    ("certificate", "Certificates of the publisher"),
    ("crl", "Certificates of the publisher"),
    ("request", "Request"),
    ("keyrequest", "Key in an HSM"),
    ("enrolment", "Host and boot state, as vouched for"),
    ("golden", "Host and boot state, as vouched for"),
    ("attestation", "Evidence of the host's TPM"),
    ("receipt", "Receipts"),
    ("burn", "Burn receipts"),
    ("time", "Times"),
    ("logged", "Log"),
    ("log", "Log"),
)
_OTHER = "Further checks"
_RANK = {"fail": 0, "pass": 1, "not-applicable": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Checks of one kind, failures first."""

    heading: str
    note: str
    verdicts: tuple[Verdict, ...]

    @property
    def failed(self) -> int:
        """How many do not hold."""
        return sum(verdict.outcome == "fail" for verdict in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One answer to a request; ``state`` is counted, denied or not counted."""

    officer: str
    answer: str
    state: str
    at: datetime
    until: datetime | None
    why: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """One component of a register, or many that are as expected."""

    label: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRow:
    """A register, and its components where they tell something."""

    register: Register
    matches: bool | None
    components: tuple[ComponentRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key, its certificates, and whether they were good."""

    key: JudgedKey
    good: bool
    words: str
    certificates: tuple[HeldCertificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadShareRow:
    """A share that a host calls bad."""

    officer: str
    leaf: str
    approval: Digest
    receipt: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """One release of the page."""

    anchor: str
    release: AuditedRelease
    contents: Contents | None
    failures: tuple[Verdict, ...]
    timeline: Timeline
    trees: tuple[TreePicture, ...]
    answers: tuple[AnswerRow, ...]
    log: LogView | None
    registers: tuple[RegisterRow, ...]
    keys: tuple[KeyRow, ...]
    tpm: bool
    bad_shares: tuple[BadShareRow, ...]
    checks: tuple[Checks, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole page."""

    report: AuditReport
    releases: tuple[ReleaseView, ...]
    checks: Checks

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """The checks of the case as a whole that do not hold."""
        return tuple(v for v in self.report.verdicts if v.outcome == "fail")

    @property
    def unsound(self) -> int:
        """How many releases do not hold."""
        return sum(not view.release.sound for view in self.releases)


def page_of(report: AuditReport) -> Page:
    """Work out everything a page shows."""
    opened = {found.manifest: found.contents for found in report.contents}
    return Page(
        report=report,
        releases=tuple(
            _view(release, number, opened.get(release.manifest))
            for number, release in enumerate(report.releases, 1)
        ),
        checks=_checks("The case as a whole", report.verdicts),
    )


def _view(release: AuditedRelease, number: int, contents: Contents | None) -> ReleaseView:
    return ReleaseView(
        anchor=f"release-{number}",
        release=release,
        contents=contents,
        failures=tuple(v for v in release.verdicts if v.outcome == "fail"),
        timeline=draw_timeline(release),
        trees=draw_trees(release),
        answers=tuple(_answers(release)),
        log=view_log(release),
        registers=tuple(_registers(release)),
        keys=tuple(_key(key) for key in release.exhibits.keys),
        tpm=release.exhibits.request.predicate.BURNS,
        bad_shares=tuple(_bad_shares(release)),
        checks=tuple(_sections(release)),
    )


def _answers(release: AuditedRelease) -> Iterator[AnswerRow]:
    tally = release.tally
    if tally is None:
        return
    for consent in tally.consents:
        agreed = consent.statement.predicate
        yield AnswerRow(
            officer=consent.officer if consent.authentic else f"key {agreed.author[:16]}…",
            answer="consent",
            state="counted" if consent.counts else "not counted",
            at=agreed.consented_at,
            until=agreed.expires_at,
            why=first_fault(consent.verdicts, ""),
            digest=consent.statement.digest,
        )
    for approval in (*tally.counted, *tally.passed_over):
        said, counts = approval.statement.predicate, approval in tally.counted
        why = "" if counts else first_fault(approval.verdicts, "this officer is counted already")
        yield AnswerRow(
            officer=approval.officer if approval.authentic else f"key {approval.key[:16]}…",
            answer="approval",
            state="counted" if counts else "not counted",
            at=said.approved_at,
            until=said.expires_at,
            why=why,
            digest=approval.statement.digest,
        )
    for denial in tally.denials:
        refusal = denial.statement.predicate
        good = denial.counts
        yield AnswerRow(
            officer=denial.officer if denial.authentic else "nobody known",
            answer="denial",
            state="denied" if good else "not counted",
            at=refusal.denied_at,
            until=None,
            why=f"“{refusal.reason}”" if good else first_fault(denial.verdicts, ""),
            digest=denial.statement.digest,
        )


def _registers(release: AuditedRelease) -> Iterator[RegisterRow]:
    boot = release.exhibits.boot
    for register in boot.registers if boot else ():
        yield RegisterRow(
            register=register,
            matches=None if not register.actual else register.actual == register.expected,
            components=tuple(_components(register)),
        )


def _components(register: Register) -> Iterator[ComponentRow]:
    """Name the components that differ, with a few around them that do not."""
    found = register.difference
    if found is None:
        return
    expected = found.expected
    # A startup locality differs without being one of the components.
    there = register.components[found.place :][: len(expected)] == expected
    before = register.components[: found.place]
    after = register.components[found.place + (len(expected) if there else 0) :]
    yield from _many(before[:-_AROUND])
    yield from (ComponentRow(label=label, mark="as expected") for label in before[-_AROUND:])
    if expected == found.found:
        yield from (ComponentRow(label=label, mark="changed") for label in expected)
    else:
        yield from (ComponentRow(label=label, mark="expected, not there") for label in expected)
        yield from (ComponentRow(label=label, mark="there instead") for label in found.found)
    yield from (ComponentRow(label=label, mark="as expected") for label in after[:_AROUND])
    yield from _many(after[_AROUND:])


def _many(labels: Sequence[str]) -> Iterator[ComponentRow]:
    if labels:
        yield ComponentRow(label=f"{len(labels)} more", mark="as expected")


def _key(key: JudgedKey) -> KeyRow:
    good = passed(key.verdicts)
    revocation = next((v.reason for v in key.verdicts if v.check == "certificate.revoked"), "")
    return KeyRow(
        key=key,
        good=good,
        words=revocation if good else first_fault(key.verdicts, "nothing was checked"),
        certificates=key.certificates,
    )


def _bad_shares(release: AuditedRelease) -> Iterator[BadShareRow]:
    tally = release.tally
    judged = (*tally.counted, *tally.passed_over) if tally else ()
    names = {answer.key: answer.officer for answer in judged}
    for receipt in release.exhibits.receipts:
        for share in receipt.predicate.bad_shares:
            yield BadShareRow(
                officer=names.get(share.officer) or f"key {share.officer[:16]}…",
                leaf=share.leaf,
                approval=share.approval,
                receipt=receipt.digest,
            )


def _sections(release: AuditedRelease) -> Iterator[Checks]:
    """Put checks of one kind together, kinds with failures first."""
    headings = dict(_SECTIONS)
    found: dict[str, list[Verdict]] = {heading: [] for _, heading in _SECTIONS}
    for verdict in release.verdicts:
        found.setdefault(headings.get(verdict.check.partition(".")[0], _OTHER), []).append(verdict)
    groups = [_checks(heading, said) for heading, said in found.items() if said]
    yield from sorted(groups, key=lambda group: not group.failed)
    tally = release.tally
    if tally is not None:
        for consent in tally.consents:
            officer = consent.officer if consent.authentic else ""
            yield _answered("Consent", officer, consent.verdicts)
        for approval in (*tally.counted, *tally.passed_over):
            officer = approval.officer if approval.authentic else ""
            yield _answered("Approval", officer, approval.verdicts)
        for denial in tally.denials:
            officer = denial.officer if denial.authentic else ""
            yield _answered("Denial", officer, denial.verdicts)
    for word in release.logged:
        yield _checks(f"Word of {word.log}", word.verdicts)


def _answered(kind: str, officer: str, verdicts: Sequence[Verdict]) -> Checks:
    note = "An answer that fails a check is not counted; it makes nothing unsound."
    return _checks(f"{kind} by {officer or 'nobody known'}", verdicts, note=note)


def _checks(heading: str, verdicts: Sequence[Verdict], *, note: str = "") -> Checks:
    ordered = tuple(sorted(verdicts, key=lambda verdict: _RANK[verdict.outcome]))
    spoilt = any(verdict.outcome == "fail" for verdict in ordered)
    return Checks(heading=heading, note=note if spoilt else "", verdicts=ordered)
