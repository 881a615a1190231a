"""The account of a release: who did what, in which order, and what each knew when he did.

Every entry has a stable id.  Nothing is decided here: what counts is what the verdicts say.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeVar

from custody.encoding import Digest, format_time
from custody.formats.asking import Asking
from custody.formats.envelope import Predicate, Statement
from custody.ops.audit import AuditedRelease
from custody.ops.exhibits import Exhibits
from custody.rules.approvals import Tally
from custody.rules.verdicts import Verdict

Act = Literal[
    "policy.issued",
    "host.enrolled",
    "state.approved",
    "bundle.sealed",
    "request.made",
    "consent.given",
    "consent.uncounted",
    "approval.given",
    "approval.uncounted",
    "denial.given",
    "denial.uncounted",
    "release.logged",
    "release.failed",
    "release.opened",
    "release.retained",
    "key.burned",
    "key.forgotten",
]
#: In this order where the times are equal.
ACTS: tuple[Act, ...] = (
    *("policy.issued", "host.enrolled", "state.approved", "bundle.sealed", "request.made"),
    *("consent.given", "consent.uncounted"),
    *("approval.given", "approval.uncounted", "denial.given", "denial.uncounted"),
    *("release.logged", "release.opened", "release.retained", "release.failed"),
    *("key.burned", "key.forgotten"),
)
#: What comes before a request is told first where times are equal, how it ended last.
_STAGES = (ACTS.index("request.made"), ACTS.index("release.logged"))
CUSTODIANS, ENROLLERS = "custodians", "enrollers"
#: Who did what only a name in a text, and no key, says.
UNKNOWN = "unknown"
#: What shows that a request is by the TPM that was enrolled under the host's name; the receipts of
#: a request are by its AK.
_HOST_WORD = frozenset(
    {
        *("enrolment.environment", "enrolment.host", "enrolment.threshold"),
        *("attestation.V10", "attestation.V20", "attestation.V21", "attestation.V24"),
    }
)
#: The same of a key that the policy lists as the host's.
_KEY_WORD = frozenset({"keyrequest.author", "keyrequest.signature", "keyrequest.host"})
_SHORT = 16
_ENDS: dict[str, tuple[Act, str]] = {
    "opened": ("release.opened", "opened it"),
    "retained": ("release.retained", "opened it and kept the key"),
    "failed": ("release.failed", "did not open it"),
}

P = TypeVar("P", bound=Predicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act.  ``at`` is the author's claim; ``there_by`` and ``vouched`` say who bears it out.

    ``knew`` is what the author's own statement names, in words: nobody can be shown to have known
    more.  ``index`` is where the log's word has it, and ``order`` what it is told in the order of:
    what is claimed, unless the log, whose entries have an order, shows otherwise.
    """

    act: Act
    at: datetime
    who: str
    words: str
    note: str
    knew: str
    statement: Digest
    there_by: datetime | None = None
    vouched: str = ""
    order: datetime | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class _LoggedAt:
    """Where a log has something, and when that is taken to have been made."""

    index: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that is not there, by a stable id."""

    missing: str
    words: str


def account_of(release: AuditedRelease) -> tuple[Entry, ...]:
    """Tell a release in order: that of the log, for what a log signed for, else that of claims."""
    places = _places(release)
    return tuple(sorted((_placed(e, release, places) for e in _entries(release)), key=in_order))


def in_order(entry: Entry) -> tuple[datetime, int, float, int, str, str]:
    """Return what entries are sorted by, of one release or of many."""
    index = math.inf if entry.index is None else entry.index
    stage = bisect(_STAGES, ACTS.index(entry.act))
    return entry.order or entry.at, stage, index, ACTS.index(entry.act), entry.who, entry.statement


def _places(release: AuditedRelease) -> Mapping[Digest, _LoggedAt]:
    """Say of what a log has when it can have been made: no earlier than what it has before that."""
    # An act begins with the kind of statement that it is of, and so does a log's entry.
    claimed = {
        (entry.statement, entry.act.partition(".")[0]): entry.at for entry in _entries(release)
    }
    logged = [(entry, word) for word in release.logged for entry in word.said.entries]
    logged.sort(key=lambda pair: pair[0].index)
    found: dict[Digest, _LoggedAt] = {}
    reached: datetime | None = None
    for entry, word in logged:
        at = claimed.get((entry.statement, entry.kind))
        if at is not None and entry.statement not in found:
            earliest = [moment for moment in (word.after, reached) if moment is not None]
            reached = max([min(at, word.by or word.said.logged_at), *earliest])
            found[entry.statement] = _LoggedAt(index=entry.index, at=reached)
    return found


def within(
    at: datetime, there_by: datetime | None, since: datetime, until: datetime | None
) -> bool:
    """Tell whether an act can be of a period: from ``since`` on, and before ``until``.

    By what its author claims, and by when it was seen to have been there.  Neither alone: the one
    he chooses, and the other anybody makes later who has it stamped again.
    """
    first, last = sorted((at, there_by or at))
    return since <= last and (until is None or first < until)


def gaps_of(release: AuditedRelease) -> tuple[Gap, ...]:
    """Say what is missing from the story of a release."""
    return tuple(_gaps(release))


def _placed(entry: Entry, release: AuditedRelease, places: Mapping[Digest, _LoggedAt]) -> Entry:
    stamp, place = release.times.stamps.get(entry.statement), places.get(entry.statement)
    return replace(
        entry,
        there_by=stamp.at if stamp else None,
        vouched=stamp.by if stamp else "",
        order=place.at if place else entry.at,
        index=place.index if place else None,
    )


def _gaps(release: AuditedRelease) -> Iterator[Gap]:
    tally = release.tally
    if release.exhibits.manifest is None:
        yield Gap(missing="missing.manifest", words="the manifest that the request names")
    if not release.exhibits.policies:
        yield Gap(missing="missing.policy", words="a chain of policies from the pin")
    for gap in tally.missing if tally is not None else ():
        names = ", ".join(gap.among) or "nobody left"
        yield Gap(missing="missing.approval", words=f"{gap.needed} more of {names}")
    if release.receipt is None:
        yield Gap(missing="missing.receipt", words=f"{release.host}'s word on how it ended")
    elif release.outcome == "retained" and not release.forgotten:
        yield Gap(missing="missing.forgotten", words="proof that the kept key opens nothing more")
    elif not release.exhibits.request.predicate.BURNS:
        yield Gap(missing="missing.burn", words="burn not provable: the key is in an HSM")
    elif release.burn is None and release.outcome != "retained":
        yield Gap(missing="missing.burn", words="proof that the key opens nothing more")
    if release.time == "claimed":
        yield Gap(missing="missing.time", words="anybody who vouches for the time")


def _entries(release: AuditedRelease) -> Iterator[Entry]:
    exhibits = release.exhibits
    yield from _rules(exhibits)
    if exhibits.manifest is not None:
        core = exhibits.manifest.predicate.core
        yield Entry(
            act="bundle.sealed",
            at=core.sealed_at,
            who=release.publisher or UNKNOWN,
            words="sealed the bundle",
            note="",
            knew=f"for policy version {core.policy_version}, until {format_time(core.not_after)}"
            + (f", replacing {core.replaces[:_SHORT]}…" if core.replaces else ""),
            statement=exhibits.manifest.digest,
        )
    yield Entry(
        act="request.made",
        at=exhibits.request.predicate.requested_at,
        who=_host(release),
        words="asked for it",
        note="",
        knew=_terms(exhibits.request, exhibits),
        statement=release.request,
    )
    if release.tally is not None:
        yield from _answers(release.tally, _terms(exhibits.request, exhibits))
    for word in release.logged:
        first, last = word.said.entries[0].index, word.said.entries[-1].index
        yield Entry(
            act="release.logged",
            at=word.said.logged_at,
            who=word.log,
            words="logged and signed it",
            note=f"entries {first} to {last}",
            knew=f"the request and {len(word.said.entries) - 1} answers",
            statement=word.digest,
        )
    yield from _endings(release)


def _host(release: AuditedRelease) -> str:
    """Name the host, if the request is by what is known under that name: anybody can write one."""
    word = _HOST_WORD if release.exhibits.request.predicate.BURNS else _KEY_WORD
    shown = [verdict for verdict in release.verdicts if verdict.check in word]
    held = {verdict.check for verdict in shown if verdict.outcome == "pass"}
    failed = any(verdict.outcome == "fail" for verdict in shown)
    return release.host if held == word and not failed else UNKNOWN


def _terms(request: Statement[Asking], exhibits: Exhibits) -> str:
    """Say what the terms of a request hold, which whoever answers signs."""
    terms = request.predicate.terms
    policy, golden = exhibits.policy, exhibits.golden
    state = f"{golden.predicate.name}, epoch {golden.predicate.epoch}" if golden else "unknown"
    shown = "by a key in an HSM, " if exhibits.trust_class == "hsm-key" else ""
    return (
        f"manifest {terms.manifest[:_SHORT]}…, policy version "
        f"{policy.version if policy else 'unknown'}, {request.predicate.host} {shown}in boot state "
        f"{state}, mode {terms.mode}"
    )


def _rules(exhibits: Exhibits) -> Iterator[Entry]:
    for policy in exhibits.policies:
        said = policy.predicate
        yield Entry(
            act="policy.issued",
            at=said.issued_at,
            who=CUSTODIANS,
            words=f"issued policy version {said.version}",
            note=_signed(exhibits, policy.digest),
            knew=f"{said.environment}, until {format_time(said.expires_at)}",
            statement=policy.digest,
        )
    if exhibits.enrolment is not None:
        record = exhibits.enrolment.predicate
        yield Entry(
            act="host.enrolled",
            at=record.enrolled_at,
            who=ENROLLERS,
            words=f"enrolled {record.host}",
            note=_signed(exhibits, exhibits.enrolment.digest),
            knew=f"a {record.trust_class} TPM, its EK {record.ek_spki[:_SHORT]}…",
            statement=exhibits.enrolment.digest,
        )
    if exhibits.golden is not None:
        golden = exhibits.golden.predicate
        yield Entry(
            act="state.approved",
            at=golden.issued_at,
            who=ENROLLERS,
            words=f"approved boot state {golden.name}, epoch {golden.epoch}",
            note=_signed(exhibits, exhibits.golden.digest),
            knew=f"{len(golden.pcrs)} registers",
            statement=exhibits.golden.digest,
        )


def _signed(exhibits: Exhibits, digest: Digest) -> str:
    found = exhibits.signers(digest)
    return f"signed by {', '.join(found.signers) or 'nobody known'}" if found else ""


def _answers(tally: Tally, knew: str) -> Iterator[Entry]:
    for consent in tally.consents:
        yield Entry(
            act="consent.given" if consent.counts else "consent.uncounted",
            at=consent.statement.predicate.consented_at,
            who=consent.officer if consent.authentic else "unknown",
            words="consented" if consent.counts else "consented, not counted",
            note=first_fault(consent.verdicts, ""),
            knew=knew,
            statement=consent.statement.digest,
        )
    for approval in (*tally.counted, *tally.passed_over):
        counts = approval in tally.counted
        yield Entry(
            act="approval.given" if counts else "approval.uncounted",
            at=approval.statement.predicate.approved_at,
            who=approval.officer if approval.authentic else UNKNOWN,
            words="approved" if counts else "approved, not counted",
            note=""
            if counts
            else first_fault(approval.verdicts, "this officer is counted already"),
            knew=knew,
            statement=approval.statement.digest,
        )
    for denial in tally.denials:
        good = denial.counts
        said = f"“{denial.statement.predicate.reason}”"
        doubt = first_fault(denial.verdicts, "")
        yield Entry(
            act="denial.given" if good else "denial.uncounted",
            at=denial.statement.predicate.denied_at,
            who=denial.officer if denial.authentic else UNKNOWN,
            words="denied" if good else "denied, not counted",
            note=f"{said}; {doubt}" if good and doubt else said if good else doubt,
            knew=knew,
            statement=denial.statement.digest,
        )


def _endings(release: AuditedRelease) -> Iterator[Entry]:
    for receipt in release.exhibits.receipts:
        said = receipt.predicate
        act, words = _ENDS[said.outcome]
        yield Entry(
            act=act,
            at=said.finished_at,
            who=_host(release),
            words=words,
            note=said.reason,
            knew=f"{len(said.approvals)} approvals, {len(said.bad_shares)} bad shares",
            statement=receipt.digest,
        )
    for burn in release.exhibits.burns:
        yield Entry(
            act="key.burned",
            at=burn.predicate.burned_at,
            who=_host(release),
            words="burned the key",
            note="",
            knew=f"the counter that stood at {burn.predicate.counter}",
            statement=burn.digest,
        )
    for forgotten in release.forgotten:
        said_so = forgotten.predicate
        yield Entry(
            act="key.forgotten",
            at=said_so.forgotten_at,
            who=_host(release),
            words="forgot the kept key",
            note="",
            knew=f"the counter that stood at {said_so.counter}",
            statement=forgotten.digest,
        )


def first_fault(verdicts: Sequence[Verdict], otherwise: str) -> str:
    """Say the first thing that failed, or something else where nothing did."""
    return next((v.reason for v in verdicts if v.outcome == "fail"), otherwise)
