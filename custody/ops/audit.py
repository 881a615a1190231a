"""Re-judge what happened from files and a policy pin, with no hardware and no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from custody.encoding import Digest
from custody.formats.asking import Asking, Ending
from custody.formats.burn import Burn
from custody.formats.case import Documents, Unreadable, find
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.forgotten import Forgotten
from custody.formats.logstate import SeenLogs
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.formats.receipt import BadShare
from custody.formats.state import EnrolmentMemory, Memory
from custody.ops.audit_contents import OpenedContents
from custody.ops.audit_history import judge_histories
from custody.ops.audit_log import judge_logging
from custody.ops.audit_time import TimeBasis, judge_order, moment_of, opened_at
from custody.ops.auditing import Auditing
from custody.ops.exhibits import Exhibits, gather_exhibits
from custody.rules.approvals import Tally, lacking
from custody.rules.asking import is_by_host
from custody.rules.broken import judge_rewraps
from custody.rules.burden import check_burden
from custody.rules.disposal import is_published
from custody.rules.endings import (
    Outcome,
    judge_burns,
    judge_forgotten,
    judge_receipts,
    outcome_of,
)
from custody.rules.history import History
from custody.rules.logged import JudgedLogged
from custody.rules.release import Answers, Judgement, judge
from custody.rules.situation import Situation
from custody.rules.times import Times
from custody.rules.trust import JudgedChain, TrustedPolicy
from custody.rules.verdicts import Ledger, Verdict, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRelease:
    """One request, judged again: who asked, who answered, and what came of it.

    ``outcome`` is what the host attested.  It opened, and its TPM showed that the key opens nothing
    more (``opened-and-burned``) or has not shown so (``opened-not-burned``), or it has none that
    could (``opened-burn-not-provable``); it kept the key sealed
    for restarts (``retained``); or it did not open, and can no longer (``never-opened``) or still
    could (``failed``).  Without a receipt it is how far the request came: ``approved``, ``open``
    (approvals are missing) or ``refused``.  ``logged`` are the log's good words, where the
    policy demands one.  ``time_by`` says who vouches for the moment ``at``, where anybody does, and
    ``times`` by when each statement is shown to have been there.
    """

    request: Digest
    manifest: Digest
    host: str
    publisher: str
    policy_version: int
    at: datetime
    time: TimeBasis
    time_by: str
    times: Times
    verdicts: tuple[Verdict, ...]
    tally: Tally | None
    receipt: Statement[Ending] | None
    burn: Statement[Burn] | None
    forgotten: tuple[Statement[Forgotten], ...]
    bad_shares: tuple[BadShare, ...]
    logged: tuple[JudgedLogged, ...]
    outcome: Outcome
    exhibits: Exhibits

    @property
    def sound(self) -> bool:
        """Whether every check held, and nothing was opened without a complete quorum."""
        opened = self.receipt is not None and self.receipt.predicate.outcome != "failed"
        unlawful = opened and not (self.tally is not None and self.tally.complete)
        return passed(self.verdicts) and not unlawful


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a case shows."""

    pin: Digest
    releases: tuple[AuditedRelease, ...]
    verdicts: tuple[Verdict, ...]
    unreadable: tuple[Unreadable, ...]
    contents: tuple[OpenedContents, ...] = ()
    histories: tuple[History, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every release and the case as a whole hold."""
        return passed(self.verdicts) and all(release.sound for release in self.releases)


def audit_case(
    documents: Documents,
    *,
    pin: Digest,
    at: datetime | None = None,
    contents: Sequence[OpenedContents] = (),
    retired: Sequence[EnrolmentMemory] = (),
    seen: SeenLogs | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> AuditReport:
    """Judge every request of a case.

    ``pin`` is the digest of a policy the auditor trusts, from elsewhere than the case.  ``at`` is
    the moment to judge at; without it each release is judged at log time, by the witnesses of the
    policy's log or a time-stamping authority under ``tsa_roots`` (DER certificates), else at the
    time its own statements claim; the report says which.  ``contents`` are those that whoever
    audits could open.  ``retired`` is what he remembers of hosts: a case may leave out that one was
    retired; ``seen`` of logs.  Raises `Refused` (``case.burden``) for more than anybody would
    wait for.
    """
    check_burden(documents)
    ledger = Ledger(subject="case")
    ledger.add(
        "case.readable",
        not documents.unreadable,
        "every file parses",
        otherwise=f"files that do not parse: {len(documents.unreadable)}",
    )
    ledger.add(
        "case.requests",
        bool(documents.asked),
        f"requests: {len(documents.asked)}",
        otherwise="there is no request to judge",
    )
    here = {request.digest for request in documents.asked}
    answered = [
        *(c.predicate.request for c in documents.consents),
        *(a.predicate.request for a in documents.approvals),
        *(d.predicate.request for d in documents.denials),
        *(r.predicate.request for r in documents.endings),
        *(b.predicate.request for b in documents.burns),
        *(w.predicate.request for w in documents.logged),
    ]
    strays = [request for request in answered if request not in here]
    ledger.add(
        "case.complete",
        not strays,
        "every answer and receipt has its request here",
        otherwise=f"answers or receipts to requests that are not here: {len(strays)}",
    )
    auditing = Auditing(
        documents=documents, pin=pin, at=at, retired=retired, seen=seen, tsa_roots=tsa_roots
    )
    releases = tuple(_audit_copies(copies, auditing) for copies in _by_request(documents.asked))
    for opened in contents:
        ledger.extend(opened.verdicts)
    histories = judge_histories(ledger, documents, pin=pin, seen=seen)
    return AuditReport(
        pin=pin,
        releases=releases,
        verdicts=ledger.done(),
        unreadable=documents.unreadable,
        contents=tuple(contents),
        histories=histories,
    )


def _by_request(
    requests: Iterable[Statement[Asking]],
) -> Iterable[list[Statement[Asking]]]:
    """Put the copies of each request together, the oldest request first."""
    found: dict[Digest, list[Statement[Asking]]] = {}
    for request in sorted(requests, key=lambda r: (r.predicate.requested_at, r.digest)):
        found.setdefault(request.digest, []).append(request)
    return found.values()


def _audit_copies(copies: Sequence[Statement[Asking]], auditing: Auditing) -> AuditedRelease:
    """Judge one request: a copy of it with a spoilt signature says nothing about it."""
    # The text is the same in all: only one whose signature is good can be better than another.
    quoted = [request for request in copies if is_by_host(request)] or copies[:1]
    judged = [_audit_one(request, auditing) for request in quoted]
    return next((release for release in judged if passed(release.verdicts)), judged[0])


def _audit_one(request: Statement[Asking], auditing: Auditing) -> AuditedRelease:
    ledger = Ledger(subject=f"request of {request.predicate.host}")
    documents = auditing.documents
    named = find(documents.policies, request.predicate.terms.policy)
    # Before anybody is asked for the time: a file may bring a policy, and witnesses, of its own.
    followed = auditing.followed(named)
    times = auditing.times_by(followed)
    chosen = moment_of(request, documents, followed, times, at=auditing.at)
    moment = chosen.at
    chain = _judge_policies(ledger, auditing, named, moment=moment)
    manifest = _manifest_of(ledger, request, documents, chain)
    tally: Tally | None = None
    situation: Situation | None = None
    logged: tuple[JudgedLogged, ...] = ()
    if chain is not None and passed(chain.verdicts) and manifest is not None:
        situation = _situation_of(chain.trusted(), auditing, now=moment)
        answers = Answers(
            approvals=[a for a in documents.approvals if a.predicate.request == request.digest],
            denials=documents.denials,
            logged=[w for w in documents.logged if w.predicate.request == request.digest],
            ended_at=opened_at(request, documents),
        )
        judgement = judge(manifest, request, answers, situation)
        ledger.extend(judgement.verdicts)
        tally = judgement.tally
        receipts = judge_receipts(ledger, documents, request)
        for each in receipts:
            _judge_account(ledger, each, judgement, situation)
        logged = judge_logging(ledger, judgement, receipts, situation)
        judge_rewraps(ledger, manifest, situation)
    else:
        ledger.extend(chain.verdicts if chain is not None else ())
        receipts = judge_receipts(ledger, documents, request)
    burns = judge_burns(ledger, documents, request, {receipt.digest for receipt in receipts})
    if situation is not None and manifest is not None and tally is not None:
        judge_order(ledger, request, manifest, tally, receipts, burns, logged, times)
    forgotten = judge_forgotten(ledger, documents, request)
    receipt = receipts[0] if receipts else None
    burn = burns[0] if burns else None
    policies = chain.statements if chain is not None else ()
    return AuditedRelease(
        request=request.digest,
        manifest=request.predicate.terms.manifest,
        host=request.predicate.host,
        publisher=_publisher(manifest, [s.predicate for s in policies]),
        policy_version=policies[-1].predicate.version if policies else 0,
        at=moment,
        time=chosen.basis,
        time_by=chosen.by,
        times=times,
        verdicts=ledger.done(),
        tally=tally,
        receipt=receipt,
        burn=burn,
        forgotten=forgotten,
        bad_shares=receipt.predicate.bad_shares if receipt else (),
        logged=logged,
        outcome=outcome_of(request, receipt, burn, tally, ledger),
        exhibits=gather_exhibits(
            request,
            documents,
            manifest=manifest,
            policies=policies,
            receipts=receipts,
            burns=burns,
            situation=situation,
            tally=tally,
        ),
    )


def _judge_policies(
    ledger: Ledger, auditing: Auditing, named: Statement[Policy] | None, *, moment: datetime
) -> JudgedChain | None:
    """Judge the policies up to the one a request was made under; newer ones judge later requests.

    That a newer one was already signed is shown, not failed: which policy had reached this host
    and its officers, nothing in a case without a log can prove.
    """
    ledger.add(
        "case.policy",
        named is not None,
        "the policy it was made under is here",
        otherwise="the policy it was made under is not in the case",
    )
    if named is None:
        return None
    here = named.predicate
    newer = [
        p.predicate
        for p in auditing.documents.policies
        if p.predicate.version > here.version
        and p.predicate.genesis == (here.genesis or named.digest)
        and p.predicate.issued_at <= moment
    ]
    if newer:
        latest = max(newer, key=lambda policy: policy.version)
        ledger.skip(
            "case.superseded",
            f"policy version {latest.version} claims to be issued {latest.issued_at:%Y-%m-%d}, "
            f"before this moment, but version {here.version} was used",
        )
    return auditing.chain_to(named).at(moment)


def _manifest_of(
    ledger: Ledger, request: Statement[Asking], documents: Documents, chain: JudgedChain | None
) -> Statement[Manifest] | None:
    """Judge whether the manifest a request names is here; return its best copy.

    That is, of several, one whose signature is good.
    """
    wanted = request.predicate.terms.manifest
    copies = [m for m in documents.manifests if m.digest == wanted]
    if chain is not None and chain.statements:
        policy = chain.statements[-1].predicate
        copies.sort(key=lambda manifest: not is_published(manifest, policy))
    ledger.add(
        "case.manifest",
        bool(copies),
        "its manifest is here",
        otherwise="its manifest is not in the case",
    )
    return copies[0] if copies else None


def _judge_account(
    ledger: Ledger,
    receipt: Statement[Ending],
    judgement: Judgement,
    situation: Situation,
) -> None:
    """Judge whether the approvals a receipt names explain the opening it attests."""
    if receipt.predicate.outcome == "failed":
        return
    said = receipt.predicate
    judged = (*judgement.tally.counted, *judgement.tally.passed_over)
    counting = {j.statement.digest: j.officer for j in judged if j.counts}
    named = set(said.approvals)
    good = named - {share.approval for share in said.bad_shares}
    officers = {counting[digest] for digest in good & counting.keys()}
    ledger.add(
        "receipt.approvals",
        named <= counting.keys() and not lacking(officers, judgement.manifest, situation),
        "the approvals it names are here and satisfy the quorum",
        otherwise="it names approvals that are not here, do not count, or are too few",
    )


def _situation_of(trusted: TrustedPolicy, auditing: Auditing, *, now: datetime) -> Situation:
    return Situation(
        trusted=trusted,
        documents=auditing.documents,
        memory=_fresh_memory(auditing.pin, trusted.genesis, auditing.retired, now),
        now=now,
        seen=_seen_of(trusted, auditing.seen),
        links=auditing.links_by(trusted.policy),
    )


def _seen_of(trusted: TrustedPolicy, seen: SeenLogs | None) -> SignedCheckpoint | None:
    """Return the head that an auditor remembers of the log that a policy names."""
    log = trusted.policy.log_key()
    known = None if log is None or seen is None else seen.of(log.name)
    return None if known is None else decode_checkpoint(known.note)


def _publisher(manifest: Statement[Manifest] | None, policies: list[Policy]) -> str:
    """Name who published, if the key that the manifest names has signed it."""
    if manifest is None or not policies or not is_published(manifest, policies[-1]):
        return ""
    holder = policies[-1].holder(manifest.predicate.core.publisher)
    return holder.id if holder else ""


def _fresh_memory(
    pin: Digest, environment: Digest, retired: Sequence[EnrolmentMemory], moment: datetime
) -> Memory:
    """An auditor brings a pin, and which hosts he knows to be retired; the case says the rest.

    What he knows of newer records has no date, and so says nothing about an earlier moment.
    """
    ended = [
        msgspec.structs.replace(host, epoch=0, record=None)
        for host in retired
        if host.retired_at is not None and host.retired_at <= moment
    ]
    return Memory(
        kind="custody/memory/v1",
        pin=pin,
        environment=environment,
        policy=pin,
        policy_version=0,
        crls=(),
        golden_sets=(),
        hosts=(),
        enrolments=tuple(ended),
    )
