"""What a log has of a release, where the policy asks for one.  Protocol section 6, "Log".

A log's word on a request is passed over where a check fails, as approvals are: whoever can add a
file could otherwise stop a release by adding a bad one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from custody.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from custody.crypto.signature import verify
from custody.encoding import Digest, format_time, key_id, sha256
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.envelope import Envelope, Statement
from custody.formats.logentry import LogEntry, entry_of
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.logpolicy import LogPolicy, Vouched
from custody.formats.witnessing import CosignRequest
from custody.rules.heads import goes_with, links_of
from custody.rules.manifest import SKEW
from custody.rules.quorum import policy_signed_bytes
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict, passed


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a statement is in a log, and between which two moments it came there.

    ``after`` is when witnesses had cosigned the checkpoint that the request names, ``by`` the one
    that this place is proven in; None where no witness is demanded.
    """

    index: int
    log: str
    after: datetime | None
    by: datetime | None


class JudgedLogged(msgspec.Struct, frozen=True, kw_only=True):
    """A log's word on one request, and every check made on it."""

    said: Logged
    digest: Digest
    log: str
    after: datetime | None
    by: datetime | None
    verdicts: tuple[Verdict, ...]

    @property
    def counts(self) -> bool:
        """Whether every check held."""
        return passed(self.verdicts)

    def place(self, entry: LogEntry) -> Place | None:
        """Return where an entry is in the log."""
        for found in self.said.entries:
            if (found.statement, found.kind) == (entry.digest, entry.kind):
                return Place(index=found.index, log=self.log, after=self.after, by=self.by)
        return None


def place_of(envelope: Envelope, logged: Sequence[JudgedLogged]) -> Place | None:
    """Return where a statement is in the log first, by any of its words on a request."""
    # By its whole entry: a log that has the digest under another kind has something else.
    entry = entry_of(envelope)
    places = [place for word in logged if (place := word.place(entry)) is not None]
    return min(places, key=lambda place: place.index, default=None)


def check_checkpoint(request: Statement[Asking], situation: Situation) -> tuple[Verdict, ...]:
    """Judge the checkpoint that a request names: the log's, and no other history than seen here."""
    body, ledger = request.predicate, Ledger(subject=f"request of {request.predicate.host}")
    named, note = body.terms.checkpoint, body.checkpoint
    policy = situation.trusted.policy.log_policy()
    if policy is None:
        ledger.add(
            "request.checkpoint",
            named is None and note is None,
            "names no checkpoint of a log, and none is asked for",
            otherwise="names a checkpoint, and the policy knows no log",
        )
        return ledger.done()
    with ledger.failing("request.checkpoint"):
        signed = _decoded(note)
        judge_head(policy, signed)
        ledger.add(
            "request.checkpoint",
            sha256(signed.checkpoint.text().encode()).hex() == named,
            f"made when {policy.logs[0].key.name} had {signed.checkpoint.size} entries",
            otherwise="the checkpoint is not the one that the terms name",
        )
        links = _links(situation, request, policy)
        _check_continuity(ledger, "request.continuity", signed, links, situation)
    return ledger.done()


def judge_logged(
    statement: Statement[Logged], request: Statement[Asking], situation: Situation
) -> JudgedLogged:
    """Judge a log's word on ``request``; the policy demands a log, or nothing of it counts."""
    policy = situation.trusted.policy.log_policy()
    ledger = Ledger(subject="log")
    signature = statement.envelope.signatures[0]
    if policy is None:
        ledger.add("logged.author", False, "the policy knows no log")
        return _judged(statement, ledger, log="", times=(None, None))
    key = policy.logs[0].key
    ledger.add(
        "logged.author",
        signature.keyid == key_id(key.public),
        f"the key is that of {key.name}",
        otherwise="signed by another key than the log's in this policy",
    )
    with ledger.failing("logged.signature"):
        verify(key.public, statement.envelope.signed_bytes(), signature.sig)
        ledger.add("logged.signature", True, f"signature of {key.name} is good")
    with ledger.failing("logged.terms-signature"):
        message = policy_signed_bytes(request.predicate.terms.digest())
        verify(key.public, message, statement.predicate.terms_signature)
        ledger.add("logged.terms-signature", True, f"{key.name} signed these terms")
    times = check_entries(ledger, statement.predicate, request, situation, policy)
    return _judged(statement, ledger, log=key.name, times=times)


def check_entries(
    ledger: Ledger,
    said: Logged,
    request: Statement[Asking],
    situation: Situation,
    policy: LogPolicy,
) -> tuple[datetime | None, datetime | None]:
    """Judge all but the signatures of a log's word; return when request and answers came to it.

    The log asks this itself before it signs.
    """
    terms = request.predicate.terms
    ledger.add(
        "logged.request",
        (said.request, said.manifest, said.terms)
        == (request.digest, terms.manifest, terms.digest().hex()),
        "is about this request",
        otherwise="is about another request, or other terms",
    )
    ledger.add(
        "logged.policy",
        said.policy == situation.trusted.digest,
        "was given under the policy in force",
        otherwise="was given under another policy",
    )
    after = by = None
    with ledger.failing("logged.checkpoint"):
        signed, old = decode_checkpoint(said.checkpoint), _decoded(request.predicate.checkpoint)
        by, after = moment_of(judge_head(policy, signed)), moment_of(judge_head(policy, old))
        size = signed.checkpoint.size
        ledger.add("logged.checkpoint", True, f"a checkpoint of {size} entries, as demanded")
        _check_inclusion(ledger, said.entries, signed)
        _check_order(ledger, said.entries, request)
        with ledger.failing("logged.consistency"):
            verify_consistency(
                old.checkpoint.size,
                old.checkpoint.root,
                size,
                signed.checkpoint.root,
                proof=said.consistency,
            )
            ledger.add(
                "logged.consistency", True, "the log goes on from the checkpoint of the terms"
            )
            # The log asks before it has written this word down.
            links = (
                *_links(situation, request, policy),
                CosignRequest(old.checkpoint.size, said.consistency, signed),
            )
            _check_continuity(ledger, "logged.continuity", signed, links, situation)
        _check_times(ledger, request.predicate.requested_at, said.logged_at, after, by)
    return after, by


def judge_head(policy: LogPolicy, signed: SignedCheckpoint) -> Vouched:
    """Say who stands behind a checkpoint; too few witnesses: `Refused` (``log.witnesses``)."""
    try:
        return policy.judge(signed)
    except Incomplete as error:
        missing = ", ".join(error.missing)
        raise Refused(f"{error.reason}: {missing}", check="log.witnesses") from error


def check_place(
    ledger: Ledger, approval: Statement[Approval], logged: Sequence[JudgedLogged]
) -> None:
    """Judge whether an approval is logged, and whether it is from when it says that it is."""
    place = place_of(approval.envelope, logged)
    said_at, expires_at = approval.predicate.approved_at, approval.predicate.expires_at
    if place is None:
        ledger.add("approval.logged", False, "is good, but not logged, which the policy demands")
        return
    ledger.add("approval.logged", True, f"entry {place.index} of {place.log}")
    if place.after is None or place.by is None:
        ledger.skip("approval.log-time", "no witness states a time: it is claimed")
        return
    span = f"between {format_time(place.after)} and {format_time(place.by)}"
    ledger.add(
        "approval.log-time",
        place.after - SKEW <= said_at <= place.by + SKEW and place.by < expires_at,
        f"made and logged {span}",
        otherwise=f"says it was made {format_time(said_at)}, but was made and logged {span}"
        if not place.after - SKEW <= said_at <= place.by + SKEW
        else f"had expired when it was logged, {format_time(place.by)}",
    )


def check_denial_place(
    ledger: Ledger, denial: Statement[Denial], logged: Sequence[JudgedLogged]
) -> None:
    """Say where a denial is logged, and judge whether it is from when it says that it is.

    It need not be logged: a log may sign before an officer has said no.
    """
    place = place_of(denial.envelope, logged)
    if place is None:
        ledger.skip("denial.logged", "not in the log's word")
        return
    ledger.skip("denial.logged", f"entry {place.index} of {place.log}")
    if place.after is None or place.by is None:
        ledger.skip("denial.log-time", "no witness states a time: it is claimed")
        return
    said_at = denial.predicate.denied_at
    span = f"between {format_time(place.after)} and {format_time(place.by)}"
    ledger.add(
        "denial.log-time",
        place.after - SKEW <= said_at <= place.by + SKEW,
        f"made and logged {span}",
        otherwise=f"says it was made {format_time(said_at)}, but was made and logged {span}",
    )


def check_proven(ledger: Ledger, envelope: Envelope, situation: Situation) -> None:
    """Say where a statement is in the log that the policy names, if a proof shows it.

    That one is not shown to be logged is no fault: only a request and its answers must be.
    """
    policy, entry = situation.trusted.policy.log_policy(), entry_of(envelope)
    reason = "is not shown to be logged"
    for given in situation.documents.proofs:
        if policy is None or given.entry != entry:
            continue
        try:
            by = moment_of(judge_head(policy, given.proof.signed))
            given.proof.check_entry(entry.encode())
        except (Malformed, Refused) as error:
            reason = f"its proof is none: {error.reason}"
            continue
        when = f", by {format_time(by)}" if by else ""
        where = f"entry {given.proof.index} of {policy.logs[0].key.name}{when}"
        ledger.add("log.entry", True, f"{entry.kind} {entry.digest[:16]}…: {where}")
        return
    ledger.skip("log.entry", f"{entry.kind} {entry.digest[:16]}… {reason}")


def _judged(
    statement: Statement[Logged],
    ledger: Ledger,
    *,
    log: str,
    times: tuple[datetime | None, datetime | None],
) -> JudgedLogged:
    after, by = times
    return JudgedLogged(
        said=statement.predicate,
        digest=statement.digest,
        log=log,
        after=after,
        by=by,
        verdicts=ledger.done(),
    )


def _decoded(note: bytes | None) -> SignedCheckpoint:
    if note is None:
        raise Refused("names no checkpoint of the log", check="request.checkpoint")
    return decode_checkpoint(note)


def _check_inclusion(
    ledger: Ledger, entries: Iterable[LoggedStatement], signed: SignedCheckpoint
) -> None:
    head, count = signed.checkpoint, 0
    with ledger.failing("logged.inclusion"):
        for entry in entries:
            leaf = leaf_hash(entry.entry())
            verify_inclusion(leaf, entry.index, size=head.size, proof=entry.proof, head=head.root)
            count += 1
        ledger.add("logged.inclusion", True, f"statements proven to be in the log: {count}")


def _check_order(
    ledger: Ledger, entries: Sequence[LoggedStatement], request: Statement[Asking]
) -> None:
    # Every answer names the request's digest.  One logged before it is no proof of anything wrong,
    # but no honest log has any reason for it.
    first, asked = entries[0], entry_of(request.envelope)
    ledger.add(
        "logged.order",
        hmac.compare_digest(first.statement, asked.digest) and first.kind == asked.kind,
        f"the request is entry {first.index}, its answers come after it",
        otherwise="the request is not logged before its answers",
    )


def _check_continuity(
    ledger: Ledger,
    check: str,
    signed: SignedCheckpoint,
    links: Sequence[CosignRequest],
    situation: Situation,
) -> None:
    seen = situation.seen
    if seen is None:
        ledger.skip(check, "nothing of this log was seen here before")
        return
    ledger.add(
        check,
        goes_with(signed.checkpoint, seen.checkpoint, links),
        f"one history with the {seen.checkpoint.size} entries seen here",
        otherwise=f"nothing proves that {signed.checkpoint.size} entries and the "
        f"{seen.checkpoint.size} seen here are one history: custody log consistency",
    )


def links_by(
    policy: LogPolicy, documents: Documents, *requests: Statement[Asking]
) -> tuple[CosignRequest, ...]:
    """Return the consistency proofs among ``documents`` to heads that the log has signed.

    Those only: whoever can add files could otherwise add histories of his own making without end.
    """
    return tuple(link for link in links_of(documents, *requests) if _is_by(policy, link))


def _links(
    situation: Situation, request: Statement[Asking], policy: LogPolicy
) -> tuple[CosignRequest, ...]:
    if situation.seen is None:
        return ()
    if situation.links is not None:
        return situation.links
    return links_by(policy, situation.documents, request)


def _is_by(policy: LogPolicy, proof: CosignRequest) -> bool:
    try:
        policy.log_of(proof.signed)
    except Refused:
        return False
    return True


def _check_times(
    ledger: Ledger,
    requested_at: datetime,
    logged_at: datetime,
    after: datetime | None,
    by: datetime | None,
) -> None:
    """Hold what host and log claim against the times that witnesses state."""
    if after is None or by is None:
        ledger.skip("logged.time", "no witness states a time: it is claimed")
        return
    ledger.add(
        "logged.time",
        after - SKEW <= requested_at <= by + SKEW and logged_at >= by - SKEW,
        f"logged by {format_time(by)}",
        otherwise=f"request of {format_time(requested_at)}, signed by the log "
        f"{format_time(logged_at)}: witnesses say between {format_time(after)} and "
        f"{format_time(by)}",
    )


def moment_of(vouched: Vouched) -> datetime | None:
    """Return a witness's time, None if none states one; one of no calendar is `Refused`."""
    if vouched.seconds is None:
        return None
    try:
        return datetime.fromtimestamp(vouched.seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise Refused("a witness states a time that is none", check="log.witnesses") from error
