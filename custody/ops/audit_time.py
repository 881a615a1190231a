"""At which moment is a release judged, and do its statements agree about the order of things?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from custody.encoding import Digest, format_time
from custody.formats.asking import Asking, Ending
from custody.formats.burn import Burn
from custody.formats.case import Documents
from custody.formats.envelope import Predicate, Statement
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy, Role
from custody.rules.approvals import Tally
from custody.rules.endings import endings_of
from custody.rules.logged import JudgedLogged
from custody.rules.manifest import SKEW
from custody.rules.times import Times
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, passed

#: What the moment of judgement rests on: witnesses or a time-stamping authority, the auditor's own
#: word, or nothing but what the statements say of themselves.
TimeBasis = Literal["vouched", "stated", "claimed"]

P = TypeVar("P", bound=Predicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a release is judged, on what basis, and who vouches for it."""

    at: datetime
    basis: TimeBasis
    by: str = ""


def moment_of(
    request: Statement[Asking],
    documents: Documents,
    policy: Statement[Policy] | None,
    times: Times,
    *,
    at: datetime | None,
) -> Moment:
    """Choose the moment: the auditor's, else log time, else what the statements claim.

    ``policy`` is the one the request names, if it follows from his pin; else all is claimed.

    Log time is when the request and every answer that matters are shown to have been there: the
    approvals that a receipt of an opening names, or else all by officers, or else their consents.
    Nobody can make that earlier by writing another date.  A receipt that it was not opened moves
    nothing: whoever gives up may do so long after the last moment at which it could be opened.
    """
    if at is not None:
        return Moment(at=at, basis="stated")
    opened = _openings(request, documents)
    named_ones = {digest for receipt in opened for digest in receipt.approvals}
    given = {
        approval.digest: approval.predicate.approved_at
        for approval in documents.approvals
        if approval.predicate.request == request.digest
        and policy is not None
        and by_author(approval, policy.predicate, "officer")
        and (not opened or approval.digest in named_ones)
    }
    if not opened:
        given = _in_time(given, request) or _in_time(
            _consented(request, documents, policy), request
        )
    stamp = times.of(request.digest, *given)
    if stamp is not None and policy is not None:
        return Moment(at=stamp.at, basis="vouched", by=stamp.by)
    claimed = [receipt.finished_at for receipt in opened]
    claimed = claimed or [request.predicate.requested_at, *given.values()]
    return Moment(at=max(claimed), basis="claimed")


def _consented(
    request: Statement[Asking], documents: Documents, policy: Statement[Policy] | None
) -> dict[Digest, datetime]:
    return {
        consent.digest: consent.predicate.consented_at
        for consent in documents.consents
        if consent.predicate.request == request.digest
        and policy is not None
        and by_author(consent, policy.predicate, "officer")
    }


def _in_time(
    given: Mapping[Digest, datetime], request: Statement[Asking]
) -> dict[Digest, datetime]:
    # What came too late to open anything decided nothing: an officer whose clock is fast would
    # otherwise have his host's request judged when it had ended.
    ends_at = request.predicate.ends_at
    return {said: at for said, at in given.items() if ends_at is None or at < ends_at}


def opened_at(request: Statement[Asking], documents: Documents) -> datetime | None:
    """Return when a request was opened, the last time, as its host attests; None if it was not."""
    return max((said.finished_at for said in _openings(request, documents)), default=None)


def _openings(request: Statement[Asking], documents: Documents) -> list[Ending]:
    """Return the receipts of a request's openings that count."""
    said = [receipt.predicate for receipt in endings_of(documents, request)]
    return [receipt for receipt in said if receipt.outcome != "failed"]


def by_author(statement: Statement[P], policy: Policy, role: Role) -> bool:
    """Tell whether somebody in that role signed a statement.

    What is not signed by somebody the policy knows moves nothing: a stranger's file could otherwise
    shift the moment to one at which every approval has expired.
    """
    _, _, verdicts = check_author(statement, policy, role=role, check="case", subject="case")
    return passed(verdicts)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a statement says of its own time, and which others it was made after."""

    what: str
    digest: Digest
    at: datetime
    after: tuple[Digest, ...]


def judge_order(
    ledger: Ledger,
    request: Statement[Asking],
    manifest: Statement[Manifest],
    tally: Tally,
    receipts: Sequence[Statement[Ending]],
    burns: Sequence[Statement[Burn]],
    logged: Sequence[JudgedLogged],
    times: Times,
) -> None:
    """Judge the times that statements claim, against each other and against who vouches for them.

    ``logged`` are the log's good words: what needs one to open cannot have been opened before.

    A clock that was set back, or a date that was written back, contradicts what the statement names
    or what was seen of it.
    """
    claims = list(_claims(request, manifest, tally, receipts, burns))
    at = {claim.digest: claim for claim in claims}
    faults = []
    for claim in claims:
        stamp = times.stamps.get(claim.digest)
        if stamp is not None and claim.at > stamp.at + SKEW:
            faults.append(
                f"{claim.what} says {format_time(claim.at)}, and was there by "
                f"{format_time(stamp.at)}"
            )
        faults += [
            f"{claim.what} says {format_time(claim.at)}, before {at[name].what} that it names"
            for name in claim.after
            if name in at and claim.at < at[name].at - SKEW
        ]
    signed = min((word.by or word.said.logged_at for word in logged), default=None)
    faults += [
        f"the receipt says it opened {format_time(receipt.predicate.finished_at)}, before the log "
        f"signed, {format_time(signed)}"
        for receipt in receipts
        if signed is not None
        and receipt.predicate.outcome != "failed"
        and receipt.predicate.finished_at < signed - SKEW
    ]
    ledger.add(
        "time.order",
        not faults,
        "what its statements say of their times goes together",
        otherwise="; ".join(faults[:3]),
    )
    for receipt in receipts:
        _judge_opening(ledger, receipt, tally)


def _claims(
    request: Statement[Asking],
    manifest: Statement[Manifest],
    tally: Tally,
    receipts: Sequence[Statement[Ending]],
    burns: Sequence[Statement[Burn]],
) -> Iterator[_Claim]:
    yield _Claim("the manifest", manifest.digest, manifest.predicate.core.sealed_at, ())
    asked = (request.digest,)
    at = request.predicate.requested_at
    yield _Claim("the request", request.digest, at, (manifest.digest,))
    for consent in tally.consents:
        if consent.counts:
            said_so = consent.statement.predicate.consented_at
            what = f"the consent of {consent.officer}"
            yield _Claim(what, consent.statement.digest, said_so, asked)
    for approval in tally.counted:
        at = approval.statement.predicate.approved_at
        yield _Claim(f"the approval of {approval.officer}", approval.statement.digest, at, asked)
    for denial in tally.denials:
        if passed(denial.verdicts):
            at = denial.statement.predicate.denied_at
            yield _Claim(f"the denial of {denial.officer}", denial.statement.digest, at, asked)
    for receipt in receipts:
        said = receipt.predicate
        yield _Claim("the receipt", receipt.digest, said.finished_at, (*asked, *said.approvals))
    for burn in burns:
        at = burn.predicate.burned_at
        yield _Claim("the burn receipt", burn.digest, at, (burn.predicate.receipt,))


def _judge_opening(ledger: Ledger, receipt: Statement[Ending], tally: Tally) -> None:
    """Judge whether the approvals were good for as long as the host says it took."""
    said = receipt.predicate
    if said.outcome == "failed":
        return
    ends = [
        approval.statement.predicate.expires_at
        for approval in (*tally.counted, *tally.passed_over)
        if approval.counts and approval.statement.digest in said.approvals
    ]
    if ends:
        ledger.add(
            "receipt.time",
            said.finished_at < min(ends),
            f"opened at {format_time(said.finished_at)}, while its approvals were good",
            otherwise=f"opened at {format_time(said.finished_at)}, when an approval had expired",
        )
