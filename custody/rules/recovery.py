"""What makes a recovery key of a policy sound: it can be rebuilt, and not by those who approve."""

from __future__ import annotations

from collections.abc import Mapping

from custody.crypto.keyslots import STRENGTH, curve_of
from custody.crypto.quorum import Node, leaves, lint, minimal_sets, satisfied
from custody.crypto.signature import load_ec_public
from custody.errors import Malformed, Refused
from custody.formats.policy import Policy, RecoveryKey
from custody.formats.recovery import share_set
from custody.rules.verdicts import Ledger


def check_recovery(policy: Policy, ledger: Ledger) -> None:
    """Judge the recovery key of a policy: its key, its set of shares, and who holds them."""
    recovery = policy.recovery
    if recovery is None:
        for check in ("key", "shares", "living", "apart"):
            ledger.skip(f"policy.recovery-{check}", "there is no recovery key")
        return
    with ledger.failing("policy.recovery-key"):
        _check_key(policy, recovery)
        ledger.add(
            "policy.recovery-key", True, f"the recovery key is {recovery.suite}, and of nobody"
        )
    fault = shares_fault(recovery.among)
    ledger.add(
        "policy.recovery-shares",
        not fault,
        "its shares are a set that can be split",
        otherwise=f"recovery shares: {fault}",
    )
    if fault:
        ledger.skip("policy.recovery-living", "the set of shares is not sound")
        ledger.skip("policy.recovery-apart", "the set of shares is not sound")
        return
    fault = _living_fault(policy, recovery)
    ledger.add(
        "policy.recovery-living",
        not fault,
        "those of its holders who are here can rebuild it, if any one of them is gone",
        otherwise=fault,
    )
    fault = _overlap_fault(policy, recovery)
    ledger.add(
        "policy.recovery-apart",
        not fault,
        "its holders are not enough to approve a release",
        otherwise=fault,
    )


def _check_key(policy: Policy, recovery: RecoveryKey) -> None:
    if load_ec_public(recovery.spki).curve.name != curve_of(recovery.suite):
        raise Malformed(f"the recovery key does not fit suite {recovery.suite}")
    if (recovery.mlkem is not None) != (recovery.suite == "MLKEM1024_P384"):
        raise Malformed(f"the recovery key does not fit suite {recovery.suite}")
    if STRENGTH.index(recovery.suite) < STRENGTH.index(policy.weakest_suite):
        raise Malformed(f"the recovery key is weaker than {policy.weakest_suite}")
    if any(key.spki == recovery.spki for person in policy.principals for key in person.keys):
        raise Malformed("the recovery key is a key of somebody")


def shares_fault(among: Node) -> str:
    """Say why a tree of people is no set of shares, or nothing."""
    try:
        share_set(among)
    except Malformed as error:
        return error.reason
    # `lint` speaks of officers, because that is whom other trees are made of.
    faults = [fault for fault in lint(among) if "single officer" not in fault]
    if len(faults) < len(lint(among)):
        return "one person alone could rebuild the key"
    return faults[0] if faults else ""


def _living_fault(policy: Policy, recovery: RecoveryKey) -> str:
    """Say why the key could be beyond reach: too few of its holders are people of the policy."""
    here = {
        leaf.path: leaf.principal
        for leaf in leaves(recovery.among)
        if policy.principal(leaf.principal) is not None
    }
    if not satisfied(recovery.among, here.keys()):
        return "recovery needs more shares than its holders who are still here have"
    return _needed_fault(recovery.among, here)


def needed_fault(among: Node) -> str:
    """Say which holder no set of shares can do without, or nothing.

    No policy takes such a recovery key: one paper lost, and it is lost.
    """
    return _needed_fault(among, {leaf.path: leaf.principal for leaf in leaves(among)})


def _needed_fault(among: Node, here: Mapping[str, str]) -> str:
    for path, name in here.items():
        if not satisfied(among, here.keys() - {path}):
            return f"recovery needs {name}: without him the recovery key is lost"
    return ""


def _overlap_fault(policy: Policy, recovery: RecoveryKey) -> str:
    """Say which officers hold recovery shares and could approve a release by themselves.

    A group that can do both needs nobody else for either, and no approval of theirs would show.
    """
    holders = {leaf.principal for leaf in leaves(recovery.among)}
    try:
        approving = {leaf.path: leaf.principal for leaf in leaves(policy.quorum)}
        ways = minimal_sets(policy.quorum)
    except (Malformed, Refused):
        return ""  # policy.quorum says what is wrong with it
    for way in ways:
        people = {approving[path] for path in way}
        if people <= holders:
            return (
                f"{', '.join(sorted(people))} can approve a release, and all hold recovery shares"
            )
    return ""
