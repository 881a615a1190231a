"""Who can open what, and whether anybody ever held enough to open something alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from custody.crypto.quorum import Node, leaves, minimal_sets
from custody.encoding import Digest, KeyId
from custody.errors import Refused
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.policy import Policy, SuiteName
from custody.formats.recovery import BreakGlass
from custody.rules.holdings import (
    Alone,
    Hands,
    Holding,
    PassedOver,
    Sealing,
    find_alone,
    find_gathered,
    find_hands,
    find_sealings,
    hand_of,
)
from custody.rules.living import Papers, key_faults, officer_fault
from custody.rules.site import unlisted_fault
from custody.rules.trust import check_author, judge_chain, signatory
from custody.rules.verdicts import Verdict, passed, require

#: More pairs of minimal sets than these are not listed, only described.
MAX_SETS = 4096

Standing = Literal["in force", "left", "not good", "not listed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Every policy version that follows from a pin, the bundles sealed for them, and the moment.

    ``expired`` says why the newest version is not in force at ``now``, if it is not.
    """

    versions: tuple[Statement[Policy], ...]
    expired: str
    sealings: tuple[Sealing, ...]
    passed_over: tuple[PassedOver, ...]
    absent: tuple[Digest, ...]
    """Manifests that others name (withdrawn, replaced) and that are not here."""
    hands: Hands
    papers: Papers
    gathered: tuple[Alone, ...]
    """Hosts that were given enough shares of a bundle, by requests none of which was granted."""
    custodians: Mapping[Digest, tuple[str, ...]]
    """By manifest, who stated that they opened its content key by the recovery key."""

    @property
    def from_the_first(self) -> bool:
        """Whether every version is here: of tokens that changed names before, others tell."""
        return self.versions[0].predicate.version == 1

    @property
    def policy(self) -> Policy:
        """The newest version."""
        return self.versions[-1].predicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """One share of a bundle, and what has become of who holds it.  His share works in any case."""

    name: str
    leaf: str
    key: KeyId
    suite: SuiteName
    standing: Standing
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Openers:
    """Who can open one bundle.

    ``forbidden`` says why nobody may by the rules of the moment, or nothing.  ``allowed`` are the
    smallest sets of officers who can release it by those rules: by its own tree and the one
    ``in_force``, without those who are ``barred``, whose approval counts for nothing now.  ``able``
    are the smallest sets of people whose shares give its key whatever the rules say, of this
    manifest or of one in ``same``, which carry that key too; None where there are too many to
    list.  In ``able`` one person is one, by all his names.
    """

    sealing: Sealing
    same: tuple[Sealing, ...]
    keepers: tuple[Keeper, ...]
    forbidden: str
    in_force: Node
    barred: tuple[str, ...]
    allowed: tuple[tuple[str, ...], ...] | None
    able: tuple[tuple[str, ...], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OneKey:
    """The manifests that carry one content key, and who holds a threshold of it by himself.

    ``custodians`` stated that they opened it by the recovery key, and so had it whole.
    """

    manifests: tuple[Sealing, ...]
    alone: tuple[Alone, ...]
    custodians: tuple[str, ...]


def read_environment(documents: Documents, *, pin: Digest, now: datetime) -> Environment:
    """Follow the policies from the pin and read who was sealed what.

    Versions before the pinned one are read too if they lead from the first to it.
    A newest version that has expired is no reason to stop: what was sealed stays sealed.  Every
    other failed check is `Refused`.
    """
    judged = judge_chain(documents.policies, pin=pin, floor=0, now=now)
    expired = [v for v in judged.verdicts if _is_expiry(v)]
    require([v for v in judged.verdicts if not _is_expiry(v)])
    versions = _from_the_first(judged.statements, documents.policies, now)
    policies = [statement.predicate for statement in versions]
    found, over = find_sealings(documents.manifests, policies)
    hands = find_hands(policies)
    return Environment(
        versions=versions,
        expired=expired[0].reason if expired else "",
        sealings=found,
        passed_over=over,
        absent=_absent(policies, found, over),
        hands=hands,
        gathered=tuple(
            one
            for sealing in found
            for one in find_gathered(
                sealing, documents.key_requests, documents.approvals, policies, hands
            )
        ),
        papers=Papers(certificates=documents.certificates, crls=documents.crls, now=now),
        custodians=_breakers(documents.broken, policies),
    )


def _from_the_first(
    versions: tuple[Statement[Policy], ...], known: Sequence[Statement[Policy]], now: datetime
) -> tuple[Statement[Policy], ...]:
    """Put the versions before the pinned one in front, if they lead to it.

    Every version names the first, which is therefore believed as the pinned one is.  One token may
    have been listed under another name before somebody pinned.
    """
    pinned, newest = versions[0], versions[-1]
    if pinned.predicate.genesis is None:
        return versions
    earlier = [s for s in known if s.predicate.version < pinned.predicate.version]
    whole = judge_chain(
        [*earlier, *versions], pin=pinned.predicate.genesis, floor=0, now=now
    ).statements
    return whole if whole and whole[-1].digest == newest.digest else versions


def _alone(sealings: Sequence[Sealing], environment: Environment) -> Iterator[Alone]:
    for sealing in sealings:
        yield from find_alone(sealing, environment.hands)
        yield from (a for a in environment.gathered if a.manifest == sealing.manifest.digest)


def _breakers(
    broken: Sequence[Statement[BreakGlass]], policies: Sequence[Policy]
) -> Mapping[Digest, tuple[str, ...]]:
    """Tell who opened which manifest's content key by the recovery key, by their own word."""
    found: dict[Digest, set[str]] = {}
    for statement in broken:
        for policy in policies:
            _, name, verdicts = check_author(
                statement, policy, role="custodian", check="recovery", subject="break-glass"
            )
            if passed(verdicts):
                found.setdefault(statement.predicate.manifest, set()).add(name)
    return {manifest: tuple(sorted(names)) for manifest, names in found.items()}


def _is_expiry(verdict: Verdict) -> bool:
    return verdict.check == "policy.expired" and verdict.outcome == "fail"


def _absent(
    policies: Sequence[Policy], found: Sequence[Sealing], over: Sequence[PassedOver]
) -> tuple[Digest, ...]:
    named = {digest for policy in policies for digest in policy.withdrawn}
    named |= {
        replaced for s in found if (replaced := s.manifest.predicate.core.replaces) is not None
    }
    here = {s.manifest.digest for s in found} | {one.manifest for one in over}
    return tuple(sorted(named - here))


def who_can_open(environment: Environment) -> tuple[Openers, ...]:
    """Say of every bundle who can open it: by the rules, and by the shares alone."""
    living = _living(environment)
    return tuple(_openers(sealing, environment, living) for sealing in environment.sealings)


def _living(environment: Environment) -> Mapping[str, str]:
    """Say of every officer of the policy in force why he cannot approve, or nothing."""
    policy = environment.policy
    return {
        person.id: officer_fault(policy, person, environment.papers)
        for person in policy.principals
        if "officer" in person.roles
    }


def _openers(sealing: Sealing, environment: Environment, living: Mapping[str, str]) -> Openers:
    forbidden = _forbidden(sealing, environment)
    able = frozenset(name for name, fault in living.items() if not fault)
    in_force = environment.policy.quorum
    allowed = () if forbidden else _allowed(sealing.tree, in_force, able)
    if not forbidden and allowed == ():
        forbidden = "too few of its officers are in force"
    named = {leaf.principal for leaf in (*leaves(sealing.tree), *leaves(in_force))}
    same = tuple(
        other
        for other in environment.sealings
        if other.secret == sealing.secret and other is not sealing
    )
    return Openers(
        sealing=sealing,
        same=same,
        keepers=tuple(_keeper(holding, environment) for holding in sealing.holdings),
        forbidden=forbidden,
        in_force=in_force,
        barred=tuple(sorted(named - able)),
        allowed=allowed,
        able=_able((sealing, *same), environment.hands),
    )


def _able(sealings: Sequence[Sealing], hands: Hands) -> tuple[tuple[str, ...], ...] | None:
    """List the smallest sets of people whose shares give a key that all these bundles carry."""
    ways: set[frozenset[str]] = set()
    for sealing in sealings:
        held: dict[str, set[str]] = {}
        for holding in sealing.holdings:
            held.setdefault(holding.leaf, set()).add(" alias ".join(hand_of(holding, hands)))
        try:
            sets = minimal_sets(sealing.tree)
        except Refused:
            return None
        choices = [[sorted(held.get(path, ())) for path in sorted(paths)] for paths in sets]
        if sum(math.prod(map(len, choice)) for choice in choices) > MAX_SETS:
            return None
        ways |= {frozenset(way) for choice in choices for way in itertools.product(*choice)}
    return _least(ways)


def _least(sets: Collection[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    least = [found for found in sets if not any(other < found for other in sets)]
    return tuple(sorted(tuple(sorted(found)) for found in least))


def _forbidden(sealing: Sealing, environment: Environment) -> str:
    """Say why no officer may release a bundle at the moment, or nothing."""
    policy, core = environment.policy, sealing.manifest.predicate.core
    if environment.expired:
        return f"the policy is {environment.expired}"
    if sealing.manifest.digest in policy.withdrawn:
        return "withdrawn by the policy in force"
    if environment.papers.now >= core.not_after:
        return f"its time ended {core.not_after:%Y-%m-%d}"
    found = signatory(policy, core.publisher, "publisher")
    if found is None:
        return f"the key of {sealing.publisher} that signed it is no publisher's any more"
    faults = key_faults(policy, *found, environment.papers)
    return f"the publisher's key: {faults[0].reason}" if faults else unlisted_fault(core, policy)


def _allowed(
    sealed: Node, in_force: Node, living: frozenset[str]
) -> tuple[tuple[str, ...], ...] | None:
    """List the smallest sets of the living who satisfy both trees: shares by one, words by both."""
    one, two = _names(sealed), _names(in_force)
    if one is None or two is None or len(one) * len(two) > MAX_SETS:
        return None
    unions = {frozenset(a) | frozenset(b) for a, b in itertools.product(one, two)}
    return _least([found for found in unions if found <= living])


def _names(tree: Node) -> tuple[tuple[str, ...], ...] | None:
    who = {leaf.path: leaf.principal for leaf in leaves(tree)}
    try:
        sets = minimal_sets(tree)
    except Refused:
        return None
    return tuple(sorted(tuple(sorted(who[path] for path in paths)) for paths in sets))


def _keeper(holding: Holding, environment: Environment) -> Keeper:
    policy = environment.policy
    standing, reason = _standing(holding, policy, environment)
    return Keeper(
        name=holding.principal,
        leaf=holding.leaf,
        key=holding.key,
        suite=holding.suite,
        standing=standing,
        reason=reason,
    )


def _standing(holding: Holding, policy: Policy, environment: Environment) -> tuple[Standing, str]:
    person = policy.principal(holding.principal)
    if person is None or "officer" not in person.roles:
        return "left", f"no officer since version {_since(holding.principal, environment)}"
    key = next((key for key in person.keys if key.key_id == holding.key), None)
    if key is None:
        return "not listed", "the policy in force lists this key no more"
    faults = key_faults(policy, person, key, environment.papers)
    return ("not good", faults[0].reason) if faults else ("in force", "")


def _since(name: str, environment: Environment) -> int:
    """Return the first version in which somebody is no officer any more."""
    since = environment.policy.version
    for statement in reversed(environment.versions):
        person = statement.predicate.principal(name)
        if person is not None and "officer" in person.roles:
            break
        since = statement.predicate.version
    return since


def ever_held(environment: Environment) -> tuple[OneKey, ...]:
    """Say of every content key who holds, or held, a threshold of its shares by himself.

    Of hosts without a TPM that is known by the requests and approvals that are here.
    """
    keys: dict[tuple[str, str], list[Sealing]] = {}
    for sealing in environment.sealings:
        keys.setdefault(sealing.secret, []).append(sealing)
    return tuple(
        OneKey(
            manifests=tuple(sealings),
            alone=tuple(_alone(sealings, environment)),
            custodians=tuple(
                sorted(
                    {
                        name
                        for s in sealings
                        for name in environment.custodians.get(s.manifest.digest, ())
                    }
                )
            ),
        )
        for sealings in keys.values()
    )
