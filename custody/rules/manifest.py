"""May this bundle be released at all?  Manifest against policy, certificates and the moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from custody.crypto.keyslots import STRENGTH
from custody.crypto.quorum import leaves, tree_digest
from custody.encoding import format_time
from custody.formats.envelope import Statement
from custody.formats.manifest import KeySlot, Manifest
from custody.formats.policy import Policy, Principal, ShareKey
from custody.rules.people import check_key
from custody.rules.site import check_site
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict

#: How far two honest clocks may be apart.
SKEW = timedelta(minutes=5)


def check_manifest(statement: Statement[Manifest], situation: Situation) -> tuple[Verdict, ...]:
    """Judge one manifest by the policy in force and by the one it was sealed for."""
    ledger = Ledger(subject="manifest")
    policy = situation.trusted.policy
    core = statement.predicate.core
    keyid, publisher, verdicts = check_author(
        statement, policy, role="publisher", check="manifest", subject="manifest"
    )
    ledger.extend(verdicts)
    ledger.add(
        "manifest.publisher",
        keyid == core.publisher,
        "the core names its signer",
        otherwise="the core names another publisher than the one who signed",
    )
    holder, key = policy.principal(publisher), policy.signing_key(keyid)
    if holder is not None and key is not None:
        ledger.extend(check_key(holder, key, situation))
    ledger.add(
        "manifest.environment",
        core.environment == situation.trusted.genesis,
        f"sealed for {policy.environment}",
        otherwise="sealed for another environment",
    )
    ledger.add(
        "manifest.withdrawn",
        statement.digest not in policy.withdrawn,
        "not withdrawn",
        otherwise="withdrawn by the policy in force",
    )
    ledger.add(
        "manifest.expired",
        core.sealed_at - SKEW <= situation.now < core.not_after,
        f"may be released until {core.not_after:%Y-%m-%d}",
        otherwise=f"may not be released at {format_time(situation.now)}: "
        f"sealed {core.sealed_at:%Y-%m-%d}, not after {core.not_after:%Y-%m-%d}",
    )
    _check_sealing(ledger, statement.predicate, situation)
    return ledger.done()


def _check_sealing(ledger: Ledger, manifest: Manifest, situation: Situation) -> None:
    """Judge the envelope against the policy version it says it was sealed for."""
    core = manifest.core
    sealed_for = situation.trusted.version(core.policy_version)
    known = sealed_for is not None and tree_digest(sealed_for.quorum) == core.tree
    ledger.add(
        "manifest.tree",
        known,
        f"sealed by the tree of policy version {core.policy_version}",
        otherwise=f"policy version {core.policy_version} is not known here or has another tree",
    )
    if sealed_for is None or not known:
        return
    ledger.add(
        "manifest.part-digest",
        core.part_digest == sealed_for.part_digest,
        f"parts are digested with {core.part_digest}",
        otherwise=f"parts are digested with {core.part_digest}, not {sealed_for.part_digest}",
    )
    recovery = None if sealed_for.recovery is None else sealed_for.recovery.key_id
    ledger.add(
        "manifest.recovery",
        core.recovery == recovery,
        "sealed to the recovery key" if recovery else "there is no recovery key",
        otherwise="not sealed to the recovery key of the policy, or to one that is not there",
    )
    check_site(core, sealed_for, situation, ledger)
    fault = _slot_fault(manifest, sealed_for, situation.trusted.policy)
    ledger.add(
        "manifest.slots", not fault, "every leaf has its slots and commitment", otherwise=fault
    )


def _slot_fault(manifest: Manifest, sealed_for: Policy, in_force: Policy) -> str:
    """Say what is wrong with the slots, or nothing.

    A publisher could otherwise leave an officer out, or seal an officer's share to a key of his
    own and so need one approval less.
    """
    leaf_paths = {leaf.path: leaf.principal for leaf in leaves(sealed_for.quorum)}
    if [c.leaf for c in manifest.envelope.commitments] != sorted(leaf_paths):
        return "commitments are not one per leaf of the tree"
    filled, readers = set(), set()
    for slot in manifest.envelope.slots:
        if slot.purpose == "recovery":
            if sealed_for.recovery is not None and slot.suite != sealed_for.recovery.suite:
                return "the slot of the recovery key has another suite than the key"
            # It holds the content key whole: whoever breaks its suite needs nobody's share.
            if STRENGTH.index(slot.suite) < STRENGTH.index(in_force.weakest_suite):
                return f"the slot of the recovery key is weaker than {in_force.weakest_suite}"
            continue
        holder = sealed_for.holder(slot.recipient)
        if holder is None:
            return f"a slot is sealed to key {slot.recipient[:16]}, which the policy does not list"
        fault = _recipient_fault(slot, holder, leaf_paths, in_force)
        if fault:
            return fault
        if slot.purpose == "share":
            filled.add(slot.leaf)
        elif slot.purpose == "contents":
            readers.add(holder.id)
    if filled != set(leaf_paths):
        return f"leaf {min(set(leaf_paths) - filled)} has no slot"
    # Nor may he let an officer open a share of something he cannot look into.
    blind = sorted(set(leaf_paths.values()) - readers)
    return f"contents are not sealed to {blind[0]}" if blind else ""


def _recipient_fault(
    slot: KeySlot, holder: Principal, leaf_paths: Mapping[str, str], in_force: Policy
) -> str:
    """Say why a slot may not be sealed to that key of its holder, or nothing."""
    key = next(k for k in holder.keys if k.key_id == slot.recipient)
    if not isinstance(key, ShareKey) or key.suite != slot.suite:
        return f"a slot of {holder.id} has another suite than his key"
    if STRENGTH.index(slot.suite) < STRENGTH.index(in_force.weakest_suite):
        return f"the slot of {holder.id} is weaker than {in_force.weakest_suite}"
    if slot.purpose == "share" and leaf_paths.get(slot.leaf) != holder.id:
        return f"a share of leaf {slot.leaf} is sealed to {holder.id}, who does not hold it"
    if slot.purpose == "contents" and not {"officer", "auditor"} & set(holder.roles):
        return f"contents are sealed to {holder.id}, who is neither officer nor auditor"
    if slot.purpose == "site" and "site" not in holder.roles:
        return f"a site's half is sealed to {holder.id}, who is no site"
    return ""
