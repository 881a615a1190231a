"""Whose an answer is, whether he may give it, and for how long it is good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from custody.errors import Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.keyrequest import Consent
from custody.formats.manifest import Manifest
from custody.formats.policy import Principal
from custody.ops.answers import own_answers
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.rules.approvals import Tally, tally
from custody.rules.people import check_key
from custody.rules.release import unconsented
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import passed, require


def answer_lifetime(wanted: timedelta | None, situation: Situation) -> timedelta:
    """Return how long an answer counts: as wanted, if the policy allows it, or as it allows."""
    longest = timedelta(seconds=situation.trusted.policy.limits.approval_seconds)
    if wanted is None:
        return longest
    if not timedelta(seconds=1) <= wanted <= longest or wanted.microseconds:
        raise Refused(
            f"an approval lives from 1 to {longest.total_seconds():.0f} whole seconds",
            check="approve.lifetime",
        )
    return wanted


def officer_of(signer: Signer, situation: Situation) -> str:
    """Return whose key this is; nobody's, no officer's, or one revoked: `Refused`."""
    policy = situation.trusted.policy
    holder, key = policy.holder(signer.key_id), policy.signing_key(signer.key_id)
    if holder is None or key is None or "officer" not in holder.roles:
        raise Refused(
            f"{_whose(holder)} in policy version {policy.version}", check="approve.officer"
        )
    require(check_key(holder, key, situation))
    return holder.id


def _whose(holder: Principal | None) -> str:
    if holder is None:
        return "this key is nobody's"
    return f"{holder.id} is {' and '.join(holder.roles)}, and no officer,"


def check_may_answer(
    officer: str,
    request: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
    home: Home,
) -> Tally:
    """Refuse a publisher's answer to his own manifest, and one by who denied these terms.

    Returns where the request stands.
    """
    policy = situation.trusted.policy
    publisher = policy.holder(manifest.predicate.core.publisher)
    if publisher is not None and publisher.id == officer and not policy.self_approval:
        raise Refused("you published this manifest yourself", check="approval.self")
    # His own home remembers what he said, though nobody brought it along.
    denials = (*situation.documents.denials, *own_answers(home, Denial, request))
    now = tally((), denials, request, manifest, situation)
    if any(denial.officer == officer and denial.counts for denial in now.denials):
        raise Refused(
            "you denied these terms; a new request is needed",
            check="approval.denied",
            where=f"request of {request.predicate.host}",
        )
    return now


def check_may_approve(
    manifest: Statement[Manifest],
    requests: Sequence[Statement[Asking]],
    situation: Situation,
    home: Home,
    signer: Signer,
) -> str:
    """Return whose key ``signer`` is, if he may approve these requests now.

    Whether they are sound is not asked.  Raises as `officer_of` and `check_may_answer`;
    `Incomplete` where consents are taken first and are too few.
    """
    officer = officer_of(signer, situation)
    for request in requests:
        standing = check_may_answer(officer, request, manifest, situation, home)
        if standing.unconsented:
            raise unconsented(standing, f"request of {request.predicate.host}")
    return officer


def yes_before(
    officer: str, request: Statement[Asking], situation: Situation, home: Home
) -> tuple[type[Consent | Approval], ...]:
    """Return in which ways an officer has said yes to the terms of a request.

    Whether that still counts is not asked.  His own home tells, and the documents, as he may have
    used another token.
    """
    terms = request.predicate.terms.digest().hex()

    def is_his(statement: Statement[Consent] | Statement[Approval]) -> bool:
        if statement.predicate.terms != terms:
            return False
        policy = situation.trusted.policy
        _, author, shown = check_author(
            statement, policy, role="officer", check="answer", subject="answer"
        )
        return author == officer and passed(shown)

    documents = situation.documents
    found: list[type[Consent | Approval]] = []
    if own_answers(home, Consent, request) or any(map(is_his, documents.consents)):
        found.append(Consent)
    if own_answers(home, Approval, request) or any(map(is_his, documents.approvals)):
        found.append(Approval)
    return tuple(found)
