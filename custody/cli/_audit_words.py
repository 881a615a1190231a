"""Audits in words: what auditors read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from custody.cli._ui import Screen, verdict_line
from custody.cli._words import (
    AnswerView,
    CheckView,
    MissingView,
    answer_views,
    check_views,
    missing_views,
    plain,
    show_contents,
    show_tally,
    show_unreadable,
    time,
)
from custody.encoding import Record
from custody.formats.receipt import BadShare
from custody.ops.account import Entry, account_of, gaps_of
from custody.ops.audit import AuditedRelease, AuditReport
from custody.report.words import device, outcome
from custody.rules.enrolment import NOT_RETIRED
from custody.rules.keyrequest import WARNING
from custody.rules.logged import JudgedLogged
from custody.rules.verdicts import Verdict

_SHORT = 16
_ENVIRONMENT = (
    "the case needs the environment's public files too: name their folder beside it, as "
    "custody auditor verify CASE ./production"
)
#: What to bring, by the check that fails for want of it.
_LACKING = {
    "case.requests": "name the host's request.dsse, or a file that custody auditor collect wrote",
    "case.complete": "name also the request.dsse that each answer and receipt is to",
    "case.manifest": "name the bundle's folder too, or its manifest.dsse",
    "case.policy": _ENVIRONMENT,
    "certificate.found": _ENVIRONMENT,
    "crl.found": _ENVIRONMENT,
    "request.enrolment": _ENVIRONMENT,
    "request.golden": _ENVIRONMENT,
    "policy.pin": "ask a custodian for the digest again, or name the folder of the environment "
    "that it is of",
}


class LoggedView(Record, frozen=True):
    """What a log has of a release; ``by`` is when witnesses had cosigned it."""

    log: str
    by: datetime | None
    entries: tuple[LoggedEntryView, ...]


class LoggedEntryView(Record, frozen=True):
    """One logged statement."""

    index: int
    kind: str
    statement: str


class EntryView(Record, frozen=True):
    """One act of a release: what its author claims, what he knew, and who bears out the time."""

    act: str
    at: datetime
    who: str
    words: str
    note: str
    knew: str
    statement: str
    there_by: datetime | None
    vouched: str


class GapView(Record, frozen=True):
    """Something that is not there."""

    missing: str
    words: str


class ReleaseView(Record, frozen=True):
    """One audited release."""

    request: str
    manifest: str
    host: str
    trust_class: str | None
    publisher: str
    publisher_token: str | None
    policy_version: int
    outcome: str
    sound: bool
    at: datetime
    time: str
    time_by: str
    receipt: str | None
    burn: str | None
    bad_shares: tuple[str, ...]
    answers: tuple[AnswerView, ...]
    missing: tuple[MissingView, ...]
    logged: tuple[LoggedView, ...]
    account: tuple[EntryView, ...]
    gaps: tuple[GapView, ...]
    checks: tuple[CheckView, ...]


class AuditView(Record, frozen=True):
    """What ``auditor verify --json`` shows."""

    pin: str
    sound: bool
    checks: tuple[CheckView, ...]
    unreadable: tuple[str, ...]
    releases: tuple[ReleaseView, ...]


def audit_view(report: AuditReport) -> AuditView:
    """Turn an audit into what JSON shows."""
    return AuditView(
        pin=report.pin,
        sound=report.sound,
        checks=check_views(report.verdicts),
        unreadable=tuple(f"{u.name}: {u.reason}" for u in report.unreadable),
        releases=tuple(release_view(release) for release in report.releases),
    )


def release_view(release: AuditedRelease) -> ReleaseView:
    """Turn one release into what JSON shows."""
    return ReleaseView(
        request=release.request,
        manifest=release.manifest,
        host=release.host,
        trust_class=release.exhibits.trust_class,
        publisher=release.publisher,
        publisher_token=_publisher_token(release),
        policy_version=release.policy_version,
        outcome=release.outcome,
        sound=release.sound,
        at=release.at,
        time=release.time,
        time_by=release.time_by,
        receipt=release.receipt.digest if release.receipt else None,
        burn=release.burn.digest if release.burn else None,
        bad_shares=tuple(_author(release, bad) for bad in release.bad_shares),
        answers=answer_views(release.tally) if release.tally else (),
        missing=missing_views(release.tally.missing) if release.tally else (),
        logged=tuple(_logged_view(word) for word in release.logged),
        account=tuple(_entry_view(entry) for entry in account_of(release)),
        gaps=tuple(GapView(missing=g.missing, words=g.words) for g in gaps_of(release)),
        checks=check_views(release.verdicts),
    )


def _logged_view(word: JudgedLogged) -> LoggedView:
    entries = tuple(
        LoggedEntryView(index=entry.index, kind=entry.kind, statement=entry.statement)
        for entry in word.said.entries
    )
    return LoggedView(log=word.log, by=word.by, entries=entries)


def _entry_view(entry: Entry) -> EntryView:
    return EntryView(
        act=entry.act,
        at=entry.at,
        who=entry.who,
        words=entry.words,
        note=entry.note,
        knew=entry.knew,
        statement=entry.statement,
        there_by=entry.there_by,
        vouched=entry.vouched,
    )


def _publisher_token(release: AuditedRelease) -> str | None:
    manifest = release.exhibits.manifest
    if manifest is None or not release.publisher:
        return None
    return release.exhibits.token_class(manifest.predicate.core.publisher)


def _author(release: AuditedRelease, bad: BadShare) -> str:
    """Name whose share a receipt calls bad: an officer, or a key that no approval here is by."""
    answers = (*release.tally.counted, *release.tally.passed_over) if release.tally else ()
    names = (answer.officer for answer in answers if answer.key == bad.officer and answer.officer)
    return next(names, f"key {bad.officer[:_SHORT]}…")


def say_what_is_lacking(screen: Screen, report: AuditReport) -> None:
    """Say of checks that fail for want of a file which one it is, and where it lies."""
    verdicts = [*report.verdicts, *(v for release in report.releases for v in release.verdicts)]
    failing = {verdict.check for verdict in verdicts if verdict.outcome == "fail"}
    for words in dict.fromkeys(words for check, words in _LACKING.items() if check in failing):
        screen.say(f"hint: {words}")


def say_what_fails(screen: Screen, report: AuditReport) -> None:
    """Say which checks of an audit fail, what could not be read, and the verdict."""
    for release in report.releases:
        if not release.sound:
            screen.say(f"{plain(release.host)}: {outcome(release)}, NOT SOUND")
        _say_failures(screen, release.verdicts)
    _say_failures(screen, report.verdicts)
    show_unreadable(screen.say, report.unreadable)
    screen.say("sound" if report.sound else "NOT SOUND")
    say_what_is_lacking(screen, report)


def _say_failures(screen: Screen, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.outcome == "fail":
            screen.say(verdict_line(verdict))


def show_audit(screen: Screen, report: AuditReport, *, checks: bool) -> None:
    """Say what a case shows, with every check that fails, and with ``checks`` every other."""
    opened = {one.manifest: one.contents for one in report.contents}
    for release in report.releases:
        held, token = device(release), _publisher_token(release)
        host = f"{release.host} ({held})" if held else release.host
        screen.show(f"{host}: {outcome(release)}{'' if release.sound else ', NOT SOUND'}")
        screen.show(f"manifest   {release.manifest}")
        screen.show(f"request    {release.request}")
        screen.show(
            f"publisher  {release.publisher or 'unknown'}{f' ({token} token)' if token else ''}, "
            f"policy version {release.policy_version}"
        )
        if release.exhibits.trust_class == "hsm-key":
            screen.show(f"boot       {WARNING}")
        vouched = f", {plain(release.time_by)}" if release.time_by else ""
        screen.show(f"judged at  {time(release.at)} (time: {release.time}{vouched})")
        for verdict in release.verdicts:
            if verdict.check == "enrolment.retired" and verdict.reason != NOT_RETIRED:
                screen.show(f"retired    {plain(verdict.reason)}")
        if release.tally is not None:
            show_tally(screen.show, release.tally)
        for word in release.logged:
            entries = ", ".join(f"{entry.kind} {entry.index}" for entry in word.said.entries)
            screen.show(f"logged     {plain(word.log)}: {entries}")
            screen.show(
                f"log time   {time(word.by) if word.by else 'claimed: no witness states one'}"
            )
        for bad in release.bad_shares:
            screen.show(
                f"bad share  {plain(_author(release, bad))}, leaf {bad.leaf} (the host's word)"
            )
        if contents := opened.get(release.manifest):
            show_contents(screen.show, contents)
        else:
            screen.show("contents   not opened: they need an officer's or auditor's share key")
        _show_checks(screen, release.verdicts, checks=checks)
        screen.show("")
    for verdict in report.verdicts:
        if verdict.check.startswith("log.") and verdict.outcome == "not-applicable":
            screen.show(f"log        {plain(verdict.reason)}")
    _show_checks(screen, report.verdicts, checks=checks)
    show_unreadable(screen.show, report.unreadable)
    screen.show("sound" if report.sound else "NOT SOUND")


def _show_checks(screen: Screen, verdicts: Sequence[Verdict], *, checks: bool) -> None:
    failed = [verdict for verdict in verdicts if verdict.outcome == "fail"]
    made = sum(verdict.outcome == "pass" for verdict in verdicts)
    more = "" if checks else "; --checks shows them"
    screen.show(f"checks     {made} hold, {len(failed)} do not{more}")
    screen.verdicts(failed)
    if checks:
        screen.verdicts([verdict for verdict in verdicts if verdict.outcome != "fail"])
