"""Which approvals count, and what the quorum still lacks.

A stale, foreign or broken approval is passed over, not refused: anyone who can write to the
store could otherwise block a release by adding one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from custody.crypto.quorum import Shortfall, leaves
from custody.crypto.signature import verify
from custody.encoding import KeyId, format_time
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.logentry import entry_of
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.rules.consents import JudgedConsent, consenting, judge_consent
from custody.rules.logged import JudgedLogged, check_denial_place, check_place
from custody.rules.manifest import SKEW
from custody.rules.people import check_key
from custody.rules.quorum import leaf_of, policy_signed_bytes, shortfall
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed

#: What shows whose an answer is.
_AUTHORSHIP = frozenset(
    {
        *("approval.author", "approval.signature", "approval.terms-signature"),
        *("denial.author", "denial.signature"),
    }
)
#: What a denial may fail and still be one.
_NOT_AGAINST_A_NO = frozenset({"denial.log-time", "certificate.found", "crl.found"})


class JudgedApproval(msgspec.Struct, frozen=True, kw_only=True):
    """One approval, whose it is, and every check made on it."""

    statement: Statement[Approval]
    officer: str
    key: KeyId
    verdicts: tuple[Verdict, ...]

    @property
    def authentic(self) -> bool:
        """Whether ``officer`` gave it, be it good or not: anybody can put a name to a copy."""
        return _is_authors(self.verdicts)

    @property
    def counts(self) -> bool:
        """Whether every check held."""
        return passed(self.verdicts)


class JudgedDenial(msgspec.Struct, frozen=True, kw_only=True):
    """One denial, and whose it is (empty when its signature is not an officer's)."""

    statement: Statement[Denial]
    officer: str
    verdicts: tuple[Verdict, ...]

    @property
    def authentic(self) -> bool:
        """Whether ``officer`` said it, as for approvals."""
        return _is_authors(self.verdicts)

    @property
    def counts(self) -> bool:
        """Whether an officer said no.  A date that is not believed takes nothing from that, nor
        does what is not here: whoever keeps the files could otherwise take a no from its author.
        """
        return passed(v for v in self.verdicts if v.check not in _NOT_AGAINST_A_NO)


def _is_authors(verdicts: Sequence[Verdict]) -> bool:
    shown = [verdict.outcome for verdict in verdicts if verdict.check in _AUTHORSHIP]
    return "pass" in shown and "fail" not in shown


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request stands."""

    counted: tuple[JudgedApproval, ...]
    passed_over: tuple[JudgedApproval, ...]
    denials: tuple[JudgedDenial, ...]
    missing: tuple[Shortfall, ...]
    out_of_reach: tuple[Shortfall, ...] = ()
    """What would still be missing if everybody approved who has not denied these terms."""
    consents: tuple[JudgedConsent, ...] = ()
    consent_first: bool = False
    """Whether a quorum must consent before it approves."""
    unconsented: tuple[Shortfall, ...] = ()
    """Whose consent is missing at the moment, where consents come first."""

    @property
    def complete(self) -> bool:
        """Whether the quorum is satisfied, by shares and by signatures."""
        return bool(self.counted) and not self.missing

    @property
    def unanswered(self) -> bool:
        """Whether no answer was seen at all, good or bad."""
        return not (self.counted or self.passed_over or self.denials or self.consents)


def judge_denial(
    statement: Statement[Denial],
    request: Statement[Asking],
    situation: Situation,
    *,
    logged: Sequence[JudgedLogged] = (),
) -> JudgedDenial:
    """Judge a denial; it never blocks, it is shown."""
    policy = situation.trusted.policy
    keyid, officer, verdicts = check_author(
        statement, policy, role="officer", check="denial", subject="denial"
    )
    ledger = Ledger(subject=f"denial by {officer or 'nobody known'}")
    ledger.extend(verdicts)
    person, key = policy.principal(officer), policy.signing_key(keyid)
    if person is not None and key is not None:
        # Or the thief of a key could, after its revocation, still keep its owner from approving
        # with his other one.
        ledger.extend(check_key(person, key, situation))
    # By terms and not by request: a host can make two keys, and so two requests, for one set of
    # terms, and what was said of the one is said of the other.
    ledger.add(
        "denial.terms",
        statement.predicate.terms == request.predicate.terms.digest().hex(),
        "answers these terms",
        otherwise="answers other terms",
    )
    if logged:
        check_denial_place(ledger, statement, logged)
    return JudgedDenial(statement=statement, officer=officer, verdicts=ledger.done())


def judge_approval(
    statement: Statement[Approval],
    request: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
    *,
    deniers: Sequence[str],
    consents: Sequence[JudgedConsent] = (),
    logged: Sequence[JudgedLogged] = (),
) -> JudgedApproval:
    """Judge one approval of ``request``.  ``deniers`` are the officers who denied it.

    Where the request takes consents first, they must have been a quorum's when it was given.  Where
    there is a log's word on the request, only an approval that it names counts.
    """
    policy = situation.trusted.policy
    keyid, officer, verdicts = check_author(
        statement, policy, role="officer", check="approval", subject="approval"
    )
    ledger = Ledger(subject=f"approval by {officer or 'nobody known'}")
    ledger.extend(verdicts)
    person, key = policy.principal(officer), policy.signing_key(keyid)
    if person is not None and key is not None:
        ledger.extend(check_key(person, key, situation))
        with ledger.failing("approval.terms-signature"):
            message = policy_signed_bytes(request.predicate.terms.digest())
            verify(key.spki, message, statement.predicate.terms_signature)
            ledger.add("approval.terms-signature", True, f"{officer} signed these terms")
    _check_answer(ledger, statement, request, manifest, situation)
    _check_place(ledger, statement.predicate, officer, manifest, situation)
    ledger.add(
        "approval.denied",
        not officer or officer not in deniers,
        "its author did not deny the same terms",
        otherwise=f"{officer} also denied the same terms",
    )
    if request.predicate.CONSENT_FIRST:
        _check_consents(ledger, statement.predicate, consents, manifest, situation)
    if logged:
        check_place(ledger, statement, logged)
    return JudgedApproval(statement=statement, officer=officer, key=keyid, verdicts=ledger.done())


def _check_answer(
    ledger: Ledger,
    statement: Statement[Approval],
    request: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
) -> None:
    approval = statement.predicate
    ledger.add(
        "approval.request",
        approval.request == request.digest,
        "answers this request",
        otherwise="answers another request",
    )
    ledger.add(
        "approval.manifest",
        approval.manifest == manifest.digest,
        "is for this manifest",
        otherwise="is for another manifest",
    )
    ledger.add(
        "approval.policy",
        approval.policy == situation.trusted.digest,
        "was given under the policy in force",
        otherwise="was given under another policy",
    )
    ledger.add(
        "approval.terms",
        approval.terms == request.predicate.terms.digest().hex(),
        "names these terms",
        otherwise="names other terms",
    )
    life = timedelta(seconds=situation.trusted.policy.limits.approval_seconds)
    ledger.add(
        "approval.time",
        approval.approved_at - SKEW <= situation.now < approval.expires_at
        and approval.expires_at <= approval.approved_at + life,
        f"good until {format_time(approval.expires_at)}",
        otherwise=f"expired, not yet good, or longer than the policy allows: "
        f"{format_time(approval.approved_at)} to {format_time(approval.expires_at)}",
    )
    ends_at = request.predicate.ends_at
    if ends_at is not None:
        ledger.add(
            "approval.deadline",
            approval.approved_at < ends_at + SKEW,
            "given before the request's deadline",
            otherwise=f"given {format_time(approval.approved_at)}, after the request's deadline, "
            f"{format_time(ends_at)}",
        )


def _check_place(
    ledger: Ledger,
    approval: Approval,
    officer: str,
    manifest: Statement[Manifest],
    situation: Situation,
) -> None:
    """Judge the leaf an approval fills, and that nobody approves his own manifest."""
    core = manifest.predicate.core
    sealed_for = situation.trusted.version(core.policy_version)
    leaf = leaf_of(sealed_for.quorum, officer) if sealed_for else None
    ledger.add(
        "approval.leaf",
        leaf is not None and leaf.path == approval.leaf,
        f"{officer} holds leaf {approval.leaf}",
        otherwise=f"{officer or 'its author'} does not hold leaf {approval.leaf}",
    )
    publisher = situation.trusted.policy.holder(core.publisher)
    ledger.add(
        "approval.self",
        situation.trusted.policy.self_approval or publisher is None or publisher.id != officer,
        "its author did not publish the manifest",
        otherwise=f"{officer} published this manifest and may not approve it",
    )


def _check_consents(
    ledger: Ledger,
    approval: Approval,
    consents: Sequence[JudgedConsent],
    manifest: Statement[Manifest],
    situation: Situation,
) -> None:
    """Judge whether a quorum had consented when an approval was given."""
    officers = consenting(consents, approval.approved_at)
    gaps = lacking(officers, manifest, situation)
    words = "; ".join(f"{gap.needed} more of {', '.join(gap.among)}" for gap in gaps)
    ledger.add(
        "approval.consents",
        bool(officers) and not gaps,
        f"{', '.join(sorted(officers))} had consented to this request",
        otherwise=f"given before enough had consented: {words}",
    )


def tally(
    approvals: Sequence[Statement[Approval]],
    denials: Sequence[Statement[Denial]],
    request: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
    *,
    logged: Sequence[JudgedLogged] = (),
    ended_at: datetime | None = None,
) -> Tally:
    """Judge every answer and count: a leaf, an officer and a key count once each.

    Both trees must hold: the one the bundle was sealed by, and the one in force.  ``logged`` are
    a log's good words on the request; with any, what they do not name is passed over.  Consents are
    those among ``situation.documents``.  With ``ended_at``, when it was opened, a denial that says
    it is later takes no approval back, unless every word names it: without one it did not open.
    """
    terms = request.predicate.terms.digest().hex()
    heard = [
        judge_denial(d, request, situation, logged=logged)
        for d in denials
        if d.predicate.request == request.digest or d.predicate.terms == terms
    ]
    deniers = [d.officer for d in heard if d.counts and not _is_later(d, ended_at, logged)]
    consents = [
        judge_consent(c, request, manifest, situation, deniers=deniers, logged=logged)
        for c in situation.documents.consents
        if c.predicate.request == request.digest
    ]
    agreed = consenting(consents, situation.now)
    judged = [
        judge_approval(
            a, request, manifest, situation, deniers=deniers, consents=consents, logged=logged
        )
        for a in sorted(approvals, key=lambda a: (a.predicate.approved_at, a.digest))
    ]
    counted: dict[str, JudgedApproval] = {}
    for approval in judged:
        if approval.counts:
            counted.setdefault(approval.officer, approval)
    over = [a for a in judged if a not in counted.values()]
    return Tally(
        counted=tuple(counted.values()),
        passed_over=tuple(over),
        denials=tuple(heard),
        missing=_without(deniers, lacking(set(counted), manifest, situation)),
        out_of_reach=lacking(_people(manifest, situation) - set(deniers), manifest, situation),
        consents=tuple(consents),
        consent_first=request.predicate.CONSENT_FIRST,
        unconsented=_without(deniers, lacking(agreed, manifest, situation))
        if request.predicate.CONSENT_FIRST
        else (),
    )


def _is_later(
    denial: JudgedDenial, ended_at: datetime | None, logged: Sequence[JudgedLogged]
) -> bool:
    # By its author's own word, so that nobody else can take a no from him.  Not where the log shows
    # otherwise: a host that opened against a denial would write an earlier time.
    entry = entry_of(denial.statement.envelope)
    if logged and all(word.place(entry) is not None for word in logged):
        return False
    return ended_at is not None and denial.statement.predicate.denied_at > ended_at + SKEW


def _people(manifest: Statement[Manifest], situation: Situation) -> set[str]:
    trees = [situation.trusted.policy.quorum]
    sealed_for = situation.trusted.version(manifest.predicate.core.policy_version)
    trees += [sealed_for.quorum] if sealed_for else []
    return {leaf.principal for tree in trees for leaf in leaves(tree)}


def _without(deniers: Collection[str], gaps: Sequence[Shortfall]) -> tuple[Shortfall, ...]:
    """Leave out whom there is no use waiting for."""
    return tuple(
        replace(gap, among=tuple(name for name in gap.among if name not in deniers)) for gap in gaps
    )


def lacking(
    officers: Collection[str], manifest: Statement[Manifest], situation: Situation
) -> tuple[Shortfall, ...]:
    """Say what ``officers`` lack of the tree a bundle was sealed by and of the one in force."""
    policy: Policy = situation.trusted.policy
    sealed_for = situation.trusted.version(manifest.predicate.core.policy_version) or policy
    gaps = list(shortfall(sealed_for.quorum, officers))
    gaps += [gap for gap in shortfall(policy.quorum, officers) if gap not in gaps]
    return tuple(gaps)
