"""What a policy will mean for people and bundles, said before it is signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from custody.crypto.keyslots import STRENGTH
from custody.crypto.quorum import leaves, missing
from custody.encoding import Digest
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.policy import Policy, Principal, ShareKey, SigningKey
from custody.formats.policy_text import format_quorum
from custody.rules.holdings import Sealing, find_sealings
from custody.rules.living import (
    Papers,
    check_living,
    key_faults,
    living_officers,
    needed_officers,
)
from custody.rules.policy import check_policy
from custody.rules.site import unlisted_fault
from custody.rules.trust import count_signers
from custody.rules.verdicts import Ledger, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What would follow from a policy: what forbids signing it, and what its signers should know.

    ``verdicts`` judge who could still act; ``words`` are lines for people.
    """

    verdicts: tuple[Verdict, ...]
    words: tuple[str, ...]


def foresee(
    policy: Policy, *, previous: Statement[Policy] | None, known: Documents, now: datetime
) -> Foreseen:
    """Say what would follow from ``policy``, by the environment's files in ``known``.

    Before version 1 there may be no certificates, and nobody can be revoked; then who could still
    act is not judged.
    """
    papers = Papers(certificates=known.certificates, crls=known.crls, now=now)
    if previous is None and not known.certificates:
        ledger = Ledger(subject=f"policy {policy.environment}/{policy.version}")
        ledger.skip("policy.living-officers", "version 1, and no certificates are here")
        ledger.extend(check_policy(policy))
        return Foreseen(verdicts=ledger.done(), words=tuple(_suites(policy)))
    policies = _versions(policy, previous, known)
    found, _ = find_sealings(known.manifests, policies)
    return Foreseen(
        verdicts=check_living(policy, papers),
        words=(
            *_withdrawals(policy, previous, found),
            *_stranded(policy, previous, found, papers),
            *_former_recovery(policy, previous, found, papers),
            *_suites(policy),
            *_sealers(policy, papers),
            *_margins(policy, papers),
        ),
    )


def _versions(
    policy: Policy, previous: Statement[Policy] | None, known: Documents
) -> tuple[Policy, ...]:
    """Return the earlier versions of this environment that their own custodians signed."""
    genesis = policy.genesis
    statements = [*([previous] if previous else []), *known.policies]
    found = {
        statement.digest: statement.predicate
        for statement in statements
        if (statement.predicate.genesis or statement.digest) == genesis
        and statement.predicate.version < policy.version
        and not count_signers(
            statement.envelope,
            statement.predicate,
            role="custodian",
            needed=statement.predicate.thresholds.root,
        ).missing
    }
    return tuple(sorted(found.values(), key=lambda version: version.version))


def _withdrawals(
    policy: Policy, previous: Statement[Policy] | None, found: Sequence[Sealing]
) -> Iterator[str]:
    before = set(previous.predicate.withdrawn) if previous else set()
    by_digest = {sealing.manifest.digest: sealing for sealing in found}
    for digest in policy.withdrawn:
        if digest not in before:
            yield from withdrawal_words(digest, by_digest.get(digest), found, policy)


def withdrawal_words(
    digest: Digest, old: Sealing | None, known: Sequence[Sealing], policy: Policy
) -> Iterator[str]:
    """Say what withdrawing a manifest does, what its shares still do, and what came in its place.

    ``old`` is None where it is not among the files here; ``known`` are the bundles that are.
    """
    yield f"withdrawn: {digest[:16]}… is released no more; nothing takes its shares back"
    if old is None:
        yield "  its manifest is not here: whoever got shares of it can still open it together"
        yield "  whether something replaced it cannot be told"
        return
    names = sorted({holding.principal for holding in old.holdings})
    yield (
        f"  {format_quorum(old.tree)} together can still open it outside these tools,"
        f" and so can {old.publisher}, who sealed it"
    )
    gone = [name for name in names if not _is_officer(policy, name)]
    if gone:
        yield f"  no officers any more, but their shares still work: {', '.join(gone)}"
    yield from (f"  {line}" for line in _replacement(digest, old, known))


def _replacement(digest: Digest, old: Sealing, known: Sequence[Sealing]) -> Iterator[str]:
    following = [s for s in known if s.manifest.predicate.core.replaces == digest]
    if not following:
        yield "nothing here replaces it"
    for new in following:
        name = f"{new.manifest.digest[:16]}…"
        if new.secret == old.secret:
            yield (
                f"replaced by {name}, re-wrapped: the same key in a new envelope; whoever opens the"
                " old one has the new one too, and only sealing it again would end that"
            )
        else:
            yield (
                f"replaced by {name}, re-encrypted: another key; shares of the old one open nothing"
                " of it"
            )


def _stranded(
    policy: Policy,
    previous: Statement[Policy] | None,
    found: Sequence[Sealing],
    papers: Papers,
) -> Iterator[str]:
    """Name the bundles in use that the new policy would let nobody release."""
    if previous is None:
        return
    for sealing in found:
        core = sealing.manifest.predicate.core
        if sealing.manifest.digest in policy.withdrawn or papers.now >= core.not_after:
            continue
        fault = release_fault(sealing, policy)
        if fault and not release_fault(sealing, previous.predicate):
            yield (
                f"bundle {sealing.manifest.digest[:16]}… could be released no more: {fault};"
                " the publisher seals it again"
            )


def _former_recovery(
    policy: Policy,
    previous: Statement[Policy] | None,
    found: Sequence[Sealing],
    papers: Papers,
) -> Iterator[str]:
    """Name the bundles in use that the new policy's recovery key does not open.

    Told by the version that changes the key.  Shares of the former one are no less good.
    """
    new = _recovery_id(policy)
    if previous is None or new == _recovery_id(previous.predicate):
        return
    for sealing in found:
        core = sealing.manifest.predicate.core
        over = sealing.manifest.digest in policy.withdrawn or papers.now >= core.not_after
        if over or core.recovery == new:
            continue
        name = f"bundle {sealing.manifest.digest[:16]}…"
        if core.recovery is None:
            yield f"{name} is sealed to no recovery key: what its officers lose is lost"
        else:
            yield (
                f"{name} stays sealed to recovery key {core.recovery[:16]}…, whose shares open it"
                " as before; shares of another key do not"
            )


def _recovery_id(policy: Policy) -> str | None:
    return None if policy.recovery is None else policy.recovery.key_id


def release_fault(sealing: Sealing, policy: Policy) -> str:
    """Say why nobody could release a bundle under a policy, by who is listed; or nothing."""
    core = sealing.manifest.predicate.core
    if policy.signing_key(core.publisher) is None:
        return f"the key of {sealing.publisher} that signed it is not listed"
    paths = [leaf.path for leaf in leaves(sealing.tree) if _is_officer(policy, leaf.principal)]
    gaps = missing(sealing.tree, paths)
    if gaps:
        among = ", ".join(gaps[0].among)
        return f"its tree wants {gaps[0].needed} more of {among}, who are officers no more"
    fault = unlisted_fault(core, policy)
    if fault:
        return f"it is {fault}" if core.site else f"it {fault}"
    weakest = STRENGTH.index(policy.weakest_suite)
    if any(
        STRENGTH.index(slot.suite) < weakest for slot in sealing.manifest.predicate.envelope.slots
    ):
        return f"it is sealed by a suite weaker than {policy.weakest_suite}"
    return ""


def _is_officer(policy: Policy, name: str) -> bool:
    person = policy.principal(name)
    return person is not None and "officer" in person.roles


def _suites(policy: Policy) -> Iterator[str]:
    """Name who makes bundles weaker than some officers' keys: other keys of theirs, or recovery."""
    officers = [policy.principal(leaf.principal) for leaf in leaves(policy.quorum)]
    held = {person.id: _suites_of(person) for person in officers if person}
    best = max((STRENGTH.index(suite) for suites in held.values() for suite in suites), default=0)
    if policy.recovery is not None and STRENGTH.index(policy.recovery.suite) < best:
        yield (
            f"the recovery key is {policy.recovery.suite}: it opens every bundle, so that all are"
            f" as weak as that, though officers have {STRENGTH[best]}"
        )
    for leaf in leaves(policy.quorum):
        suites = held.get(leaf.principal, [])
        if len(suites) > 1:
            yield (
                f"{leaf.principal} has share keys of {' and '.join(suites)}: bundles are sealed to"
                f" each, and so are as weak as {suites[0]} until it is among [leaving] keys"
            )


def _suites_of(person: Principal) -> list[str]:
    found = {key.suite for key in person.keys if isinstance(key, ShareKey)}
    return sorted(found, key=STRENGTH.index)


def _sealers(policy: Policy, papers: Papers) -> Iterator[str]:
    able = any(
        isinstance(key, SigningKey) and not key_faults(policy, person, key, papers)
        for person in policy.principals
        if "publisher" in person.roles
        for key in person.keys
    )
    if not able:
        yield "nobody could seal anything: there is no publisher with a good signing key"


def _margins(policy: Policy, papers: Papers) -> Iterator[str]:
    living, _ = living_officers(policy, papers)
    needed = needed_officers(policy, living)
    # Who is on an all() by design is no news; what is news is that somebody else's end made it so.
    listed = frozenset(leaf.principal for leaf in leaves(policy.quorum))
    by_design = set(needed_officers(policy, listed))
    for name in needed:
        if name not in by_design:
            yield f"{name} is needed for every release now: others' keys are good no more"
