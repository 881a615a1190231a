"""Releases in words: what officers, hosts and auditors read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from custody.cli._ui import Screen
from custody.encoding import Record

if TYPE_CHECKING:  # all that officers review by, for commands that show one line
    from custody.crypto.quorum import Shortfall
    from custody.formats.case import Unreadable
    from custody.formats.contents import Contents
    from custody.formats.policy import Mode
    from custody.ops.approve import Changes, Review, ReviewedRequest
    from custody.rules.approvals import Tally
    from custody.rules.verdicts import Verdict

_FILES_SHOWN = 20
_SHORT = 16
#: What is said of evidence of other kinds than a TPM's, judged or not.
_FURTHER = ("further.evidence", "further.verifier")
_MODES: dict[Mode, str] = {
    "once": "opens once, dies with this boot",
    "sealed": "KEEPS THE KEY: opens again after every restart into this state",
    "sealed-updatable": "KEEPS THE KEY: opens again after every restart into this state, and into "
    "states that enrollers authorise later",
}


_NO_TPM = (
    "NO TPM: the burn is not provable, one key opens the shares of all its requests, "
    "and nothing but officers' programs keeps those apart"
)


class CheckView(Record, frozen=True):
    """One verdict."""

    check: str
    outcome: str
    subject: str
    reason: str


class MissingView(Record, frozen=True):
    """What one branch of the quorum tree still needs."""

    needed: int
    among: tuple[str, ...]


class AnswerView(Record, frozen=True):
    """One answer to a request, counted or not, and why not; ``good`` if it holds."""

    officer: str
    answer: str
    counted: bool
    until: datetime | None
    reason: str
    good: bool


class RequestView(Record, frozen=True):
    """One request and where it stands."""

    request: str
    host: str
    trust_class: str
    boot_state: str
    sound: bool
    complete: bool
    answers: tuple[AnswerView, ...]
    unconsented: tuple[MissingView, ...]
    """Whose consent is missing, where consents come first."""
    missing: tuple[MissingView, ...]
    checks: tuple[CheckView, ...]


class ReviewView(Record, frozen=True):
    """What ``review --json`` shows."""

    manifest: str
    publisher: str
    publisher_token: str | None
    name: str | None
    version: str | None
    notes: str | None
    files: int | None
    size_bytes: int | None
    changed: tuple[str, ...] | None
    base: str | None
    not_after: datetime
    checks: tuple[CheckView, ...]
    requests: tuple[RequestView, ...]


def check_views(verdicts: Sequence[Verdict]) -> tuple[CheckView, ...]:
    """Turn verdicts into what JSON shows."""
    return tuple(
        CheckView(check=v.check, outcome=v.outcome, subject=v.subject, reason=v.reason)
        for v in verdicts
    )


def missing_views(gaps: Sequence[Shortfall]) -> tuple[MissingView, ...]:
    return tuple(MissingView(needed=gap.needed, among=gap.among) for gap in gaps)


def answer_views(tally: Tally) -> tuple[AnswerView, ...]:
    counted = [
        AnswerView(
            officer=a.officer,
            answer="approval",
            counted=True,
            until=a.statement.predicate.expires_at,
            reason="",
            good=True,
        )
        for a in tally.counted
    ]
    over = [
        AnswerView(
            officer=a.officer if a.authentic else a.key[:_SHORT],
            answer="approval",
            counted=False,
            until=a.statement.predicate.expires_at,
            reason=next(
                (v.reason for v in a.verdicts if v.outcome == "fail"),
                "this officer is counted already",
            ),
            good=a.counts,
        )
        for a in tally.passed_over
    ]
    denials = [
        AnswerView(
            officer=d.officer if d.authentic else "nobody known",
            answer="denial",
            counted=False,
            until=None,
            reason=d.statement.predicate.reason
            if d.counts
            else next((v.reason for v in d.verdicts if v.outcome == "fail"), ""),
            good=d.counts,
        )
        for d in tally.denials
    ]
    consents = [
        AnswerView(
            officer=c.officer if c.authentic else "nobody known",
            answer="consent",
            counted=c.counts,
            until=c.statement.predicate.expires_at,
            reason=next((v.reason for v in c.verdicts if v.outcome == "fail"), ""),
            good=c.counts,
        )
        for c in tally.consents
    ]
    return (*consents, *counted, *over, *denials)


def _request_view(request: ReviewedRequest) -> RequestView:
    return RequestView(
        request=request.statement.digest,
        host=request.host,
        trust_class=request.trust_class,
        boot_state=_boot_words(request),
        sound=request.sound,
        complete=request.tally.complete,
        answers=answer_views(request.tally),
        unconsented=missing_views(request.tally.unconsented),
        missing=missing_views(request.tally.missing),
        checks=check_views(request.verdicts),
    )


def review_view(review: Review) -> ReviewView:
    """Turn a review into what JSON shows."""
    contents, changes = review.contents, review.changes
    return ReviewView(
        manifest=review.manifest.digest,
        publisher=review.publisher,
        publisher_token=review.publisher_token,
        name=contents.name if contents else None,
        version=contents.version if contents else None,
        notes=contents.notes if contents else None,
        files=len(contents.files) if contents else None,
        size_bytes=sum(f.size_bytes for f in contents.files) if contents else None,
        changed=tuple(f.name for f in changes.files) if changes else None,
        base=contents.base.manifest if contents and contents.base else None,
        not_after=review.manifest.predicate.core.not_after,
        checks=check_views(review.verdicts),
        requests=tuple(_request_view(request) for request in review.requests),
    )


def show_review(screen: Screen, review: Review, *, checks: bool, to_stderr: bool = False) -> None:
    """Say what an officer is asked to consent to."""
    show: Callable[[str], None] = (
        (lambda text: typer.echo(text, err=True)) if to_stderr else screen.show
    )
    core = review.manifest.predicate.core
    if review.contents is not None:
        show_contents(show, review.contents)
    else:
        show("model      (sealed: shown only with an officer's token)")
    token = f" ({review.publisher_token} token)" if review.publisher_token else ""
    show(f"publisher  {plain(review.publisher)}{token}, sealed {_day(core.sealed_at)}")
    show(
        f"bundle     manifest {review.manifest.digest[:_SHORT]}…, may be released until "
        f"{_day(core.not_after)}"
    )
    if core.replaces:
        show(f"replaces   manifest {core.replaces[:_SHORT]}…")
    for verdict in review.verdicts:
        if core.site and verdict.check == "manifest.site":
            show(f"site       {plain(verdict.reason)}")
    if review.changes is not None:
        _show_changes(show, review.changes)
    for request in review.requests:
        terms = request.statement.predicate.terms
        show("")
        show(
            f"host       {request.host} ({_device_words(request)}), request "
            f"{request.statement.digest[:_SHORT]}…"
        )
        show(f"boot       {plain(_boot_words(request))}; {_mode_words(request, terms.mode)}")
        show(f"asked      {time(request.statement.predicate.requested_at)} by the host's clock")
        failed = [v for v in request.verdicts if v.outcome == "fail"]
        made = sum(v.outcome == "pass" for v in request.verdicts)
        for verdict in request.verdicts:
            if verdict.check in _FURTHER:
                show(f"further    {plain(verdict.reason)}")
        show(f"checks     {made} passed, {len(failed)} failed")
        for verdict in failed:
            show(f"  NO {verdict.check}: {plain(verdict.reason)}")
        show_tally(show, request.tally)
    if checks:
        show("")
        screen.verdicts([*review.verdicts, *(v for r in review.requests for v in r.verdicts)])


def _device_words(request: ReviewedRequest) -> str:
    return "key in an HSM" if request.golden is None else f"{request.trust_class} TPM"


def _boot_words(request: ReviewedRequest) -> str:
    if request.golden is None:
        return "UNKNOWN"
    return f"{request.golden.name}, epoch {request.golden.epoch}"


def _mode_words(request: ReviewedRequest, mode: Mode) -> str:
    return _MODES[mode] if request.golden is not None else _NO_TPM


def plain(text: str) -> str:
    """Show what strangers wrote without letting it move the cursor."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def count(number: int, thing: str) -> str:
    """Write a number of things: 1 file, 2 files."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def size(size_bytes: int) -> str:
    """Write a size for people."""
    value = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def time(moment: datetime) -> str:
    """Write a moment for people."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def show_contents(show: Callable[[str], None], contents: Contents) -> None:
    total = sum(file.size_bytes for file in contents.files)
    show(
        f"model      {plain(contents.name)}, version {plain(contents.version)}: "
        f"{count(len(contents.files), 'file')}, {size(total)}"
    )
    if contents.base:
        show(f"update     to the model of manifest {contents.base.manifest}")
    for line in contents.notes.splitlines():
        show(f"notes      {plain(line)}")


def _show_changes(show: Callable[[str], None], changes: Changes) -> None:
    show(
        f"changes    since {plain(changes.previous_name)}, version "
        f"{plain(changes.previous_version)}: {count(len(changes.files), 'file')} changed, "
        f"{changes.unchanged} unchanged"
    )
    for change in changes.files[:_FILES_SHOWN]:
        mark = "added" if not change.before else "removed" if not change.after else "changed"
        show(f"  {mark:8} {plain(change.name)}")
    if len(changes.files) > _FILES_SHOWN:
        show(f"  and {len(changes.files) - _FILES_SHOWN} more")


def show_status(screen: Screen, review: Review, unreadable: Sequence[Unreadable]) -> None:
    """Say where each request stands."""
    for request in review.requests:
        screen.show(f"{request.host}: request {request.statement.digest[:_SHORT]}…")
        show_tally(screen.show, request.tally)
    show_unreadable(screen.say, unreadable)


def show_answers(
    show: Callable[[str], None], tally: Tally, unreadable: Sequence[Unreadable]
) -> None:
    """Say who answered, and what could not be read among the answers."""
    if not tally.unanswered:
        show_tally(show, tally)
    show_unreadable(show, unreadable)


def show_unreadable(show: Callable[[str], None], unreadable: Sequence[Unreadable]) -> None:
    """Name files that could not be read: an answer may be among them."""
    for file in unreadable:
        show(f"unreadable {plain(file.name)}: {plain(file.reason)}")


def show_tally(show: Callable[[str], None], tally: Tally) -> None:
    for answer in answer_views(tally):
        officer, reason = plain(answer.officer), plain(answer.reason)
        if answer.counted and answer.answer == "consent" and answer.until is not None:
            show(f"consented  {officer}, good until {time(answer.until)}")
        elif answer.counted and answer.until is not None:
            show(f"approved   {officer}, good until {time(answer.until)}")
        elif answer.answer == "denial" and answer.good:
            show(f"denied     {officer}: {reason}")
        else:
            show(f"uncounted  {officer}: {reason}")
    if tally.out_of_reach and not tally.complete:
        show("quorum     out of reach: it can be opened no more; the host must ask again")
        return
    if tally.complete:
        show("quorum     complete")
        return
    for gap in tally.unconsented:
        show(f"consents   {gap.needed} of {', '.join(gap.among)} must consent before approvals")
    if tally.consent_first and not tally.unconsented:
        show("consents   complete: officers approve now")
    # Where nobody was heard, nothing shows that anybody failed to answer.
    label = "needs      " if tally.unanswered else "missing    "
    if tally.consent_first:
        label = "approvals  needed: " if tally.unanswered else "approvals  missing: "
    for gap in tally.missing:
        show(f"{label}{gap.needed} of {', '.join(gap.among)}")
