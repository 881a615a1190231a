"""Who holds shares of what, by every policy there was and whatever today's rules say.

A share that was sealed to somebody stays his: leaving, being revoked and being withdrawn take
nothing out of a token.  So this looks at envelopes and keys, not at permissions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from custody.crypto.quorum import leaves, satisfied, tree_digest
from custody.encoding import Digest, KeyId
from custody.formats.approval import Approval
from custody.formats.envelope import Predicate, Statement
from custody.formats.keyrequest import KeyRequest
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy, Quorum, Role, ShareKey, SuiteName
from custody.rules.quorum import leaf_of
from custody.rules.site import site_of
from custody.rules.tokenkey import token_key
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed

P = TypeVar("P", bound=Predicate)
#: Which shares somebody holds.
Kind = Literal["shares", "recovery shares", "shares given to several requests"]
#: Every name a person goes by, sorted, by each of them.
Hands = Mapping[str, tuple[str, ...]]


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """One share of one bundle, as it was sealed.

    ``principal`` holds the leaf by the tree; ``names`` are all under which a policy ever listed
    the key, none where no policy did.
    """

    leaf: str
    principal: str
    key: KeyId
    suite: SuiteName
    names: tuple[str, ...]


class Sealing(msgspec.Struct, frozen=True, kw_only=True):
    """A publisher's manifest, the policy it was sealed for, and who got which share."""

    manifest: Statement[Manifest]
    policy: Policy
    publisher: str
    holdings: tuple[Holding, ...]

    @property
    def tree(self) -> Quorum:
        """The tree its shares were made by."""
        return self.policy.quorum

    @property
    def site(self) -> str:
        """The site whose HSM it takes besides, or nothing."""
        found = site_of(self.policy, self.manifest.predicate.core.site or ())
        return found.id if found and self.manifest.predicate.core.site else ""

    @property
    def recovery(self) -> Quorum | None:
        """Who can put the recovery key together that its content key is sealed to, if any."""
        key = self.policy.recovery
        named = self.manifest.predicate.core.recovery
        return key.among if key is not None and key.key_id == named else None

    @property
    def secret(self) -> tuple[Digest, Digest]:
        """What names its content key: two manifests with one are one key, sealed twice."""
        core = self.manifest.predicate.core
        return core.payload_id, core.cek_commitment


class PassedOver(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that nothing can be said about, and why."""

    manifest: Digest
    reason: str


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """One person who holds enough shares of one bundle to put its key together by himself.

    ``of`` says which shares: those he was sealed, those of the recovery key it is sealed to, or
    those that officers sealed to his key in an HSM, for requests of which none was granted.
    """

    manifest: Digest
    names: tuple[str, ...]
    leaves: tuple[str, ...]
    of: Kind = "shares"


def find_hands(policies: Iterable[Policy]) -> Hands:
    """Tell which names are one person: those that one key of a token was ever listed under."""
    groups: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for policy in policies:
        for person in policy.principals:
            mine = groups.setdefault(person.id, {person.id})
            for key in person.keys:
                other = groups[owner.setdefault(token_key(key.spki), person.id)]
                if other is not mine:
                    mine |= other
                    groups.update(dict.fromkeys(other, mine))
    return {name: tuple(sorted(group)) for name, group in groups.items()}


def find_sealings(
    manifests: Iterable[Statement[Manifest]], policies: Sequence[Policy]
) -> tuple[tuple[Sealing, ...], tuple[PassedOver, ...]]:
    """Read who was sealed what by the manifests of publishers, each manifest once.

    ``policies`` are every version that is known, of one environment.  A manifest that no publisher
    of any of them signed, or of an unknown tree, is passed over by name.
    """
    owners = _owners(policies)
    found: dict[Digest, Sealing] = {}
    over: dict[Digest, PassedOver] = {}
    for statement in manifests:
        publisher = _author(statement, policies, role="publisher", check="manifest")
        policy = _sealed_for(statement.predicate, policies)
        if not publisher:
            reason = "signed by no publisher of the policies here"
        elif policy is None:
            reason = "sealed for a policy version, or by a tree, that is not known here"
        else:
            found[statement.digest] = Sealing(
                manifest=statement,
                policy=policy,
                publisher=publisher,
                holdings=_holdings(statement.predicate, policy, owners),
            )
            continue
        over[statement.digest] = PassedOver(manifest=statement.digest, reason=reason)
    passed_over = (over[digest] for digest in sorted(over.keys() - found.keys()))
    in_order = sorted(found.values(), key=lambda s: (s.manifest.predicate.core.sealed_at, s.secret))
    return tuple(in_order), tuple(passed_over)


def find_alone(sealing: Sealing, hands: Hands) -> tuple[Alone, ...]:
    """List who by himself holds a threshold of one bundle's shares, or of its recovery key's."""
    held: dict[tuple[str, ...], set[str]] = {}
    for holding in sealing.holdings:
        held.setdefault(hand_of(holding, hands), set()).add(holding.leaf)
    alone = [
        Alone(manifest=sealing.manifest.digest, names=names, leaves=tuple(sorted(paths)))
        for names, paths in sorted(held.items())
        if satisfied(sealing.tree, paths)
    ]
    recovery = sealing.recovery
    if recovery is not None:
        kept: dict[tuple[str, ...], set[str]] = {}
        for leaf in leaves(recovery):
            kept.setdefault(hands.get(leaf.principal, (leaf.principal,)), set()).add(leaf.path)
        alone += [
            Alone(
                manifest=sealing.manifest.digest,
                names=names,
                leaves=tuple(sorted(paths)),
                of="recovery shares",
            )
            for names, paths in sorted(kept.items())
            if satisfied(recovery, paths)
        ]
    return tuple(alone)


def find_gathered(
    sealing: Sealing,
    requests: Iterable[Statement[KeyRequest]],
    approvals: Iterable[Statement[Approval]],
    policies: Sequence[Policy],
    hands: Hands,
) -> tuple[Alone, ...]:
    """List the hosts without a TPM that were given a threshold of a bundle's shares piecemeal.

    Their keys open shares of every request.  Where one request was granted by itself, its host has
    the key by right, and nothing is told of it.
    """
    askers = {
        request.digest: name
        for request in requests
        if request.predicate.terms.manifest == sealing.manifest.digest
        and (name := _author(request, policies, role="host", check="keyrequest"))
    }
    given: dict[tuple[str, ...], dict[Digest, set[str]]] = {}
    for approval in approvals:
        said = approval.predicate
        if said.request not in askers or said.manifest != sealing.manifest.digest:
            continue  # before any signature is verified: most approvals are of other bundles
        asker = askers[said.request]
        officer = _author(approval, policies, role="officer", check="approval")
        leaf = leaf_of(sealing.tree, officer) if officer else None
        if leaf:
            host = given.setdefault(hands.get(asker, (asker,)), {})
            host.setdefault(said.request, set()).add(leaf.path)
    return tuple(
        Alone(
            manifest=sealing.manifest.digest,
            names=names,
            leaves=tuple(sorted(set().union(*granted.values()))),
            of="shares given to several requests",
        )
        for names, granted in sorted(given.items())
        if satisfied(sealing.tree, set().union(*granted.values()))
        and not any(satisfied(sealing.tree, paths) for paths in granted.values())
    )


def _author(statement: Statement[P], policies: Iterable[Policy], *, role: Role, check: str) -> str:
    """Return who signed a statement in a role, by any version; empty for nobody."""
    for policy in policies:
        _, name, verdicts = check_author(statement, policy, role=role, check=check, subject=check)
        if passed(verdicts):
            return name
    return ""


def hand_of(holding: Holding, hands: Hands) -> tuple[str, ...]:
    """Return all names of the person who has the key of a share, by whatever tree it is whose."""
    # A key that no policy lists is nobody's, and so a hand of its own.
    names = holding.names or (f"key {holding.key[:16]}",)
    return tuple(sorted({name for one in names for name in hands.get(one, (one,))}))


def check_held(statement: Statement[Manifest], policies: Sequence[Policy]) -> tuple[Verdict, ...]:
    """Judge whether one person, by any of his names, would hold a threshold of a new bundle.

    One tree gives one person one leaf; over versions one token can have been two people's.
    """
    ledger = Ledger(subject="manifest")
    found, over = find_sealings([statement], policies)
    for one in over:
        ledger.add("manifest.alone", False, one.reason)
    hands = find_hands(policies)
    for sealing in found:
        alone = find_alone(sealing, hands)
        ledger.add(
            "manifest.alone",
            not alone,
            "nobody holds a threshold of its shares",
            otherwise=f"{' alias '.join(alone[0].names) if alone else ''} alone would hold a"
            f" threshold of its {alone[0].of if alone else ''}: one token was listed under each of"
            " these names",
        )
    return ledger.done()


def _owners(policies: Iterable[Policy]) -> Mapping[KeyId, tuple[str, ...]]:
    """Tell under which names each recipient was ever listed."""
    owners: dict[KeyId, set[str]] = {}
    for policy in policies:
        for person in policy.principals:
            for key in person.keys:
                if isinstance(key, ShareKey):
                    owners.setdefault(key.key_id, set()).add(person.id)
    return {key: tuple(sorted(names)) for key, names in owners.items()}


def _sealed_for(manifest: Manifest, policies: Iterable[Policy]) -> Policy | None:
    core = manifest.core
    for policy in policies:
        if policy.version == core.policy_version and tree_digest(policy.quorum) == core.tree:
            return policy
    return None


def _holdings(
    manifest: Manifest, policy: Policy, owners: Mapping[KeyId, tuple[str, ...]]
) -> tuple[Holding, ...]:
    holders = {leaf.path: leaf.principal for leaf in leaves(policy.quorum)}
    return tuple(
        Holding(
            leaf=slot.leaf,
            principal=holders.get(slot.leaf, ""),
            key=slot.recipient,
            suite=slot.suite,
            names=owners.get(slot.recipient, ()),
        )
        for slot in manifest.envelope.slots
        if slot.purpose == "share" and slot.leaf in holders
    )
