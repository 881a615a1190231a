"""Recovery keys that no policy may have: lost with one person, or in the hands of approvers."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.signature import public_bytes
from custody.formats.policy import Policy, RecoveryKey
from custody.formats.policy_text import parse_quorum
from custody.rules.policy import check_policy
from tests.unit.people import key, policy, principal

SOUND = RecoveryKey(
    epoch=1,
    suite="P256",
    spki=public_bytes(key("recovery").public_key()),
    mlkem=None,
    set_id=4711,
    among=parse_quorum("2 of (cas, cyd, ida)"),
    record="cd" * 32,
)


def _failed(made: Policy) -> set[str]:
    return {v.check for v in check_policy(made) if v.outcome == "fail"}


@pytest.mark.parametrize(
    "among",
    [
        "2 of (cas, cyd, ida)",
        "2 of (2 of (cas, cyd, ida), 2 of (erik, esme, ewan), pub)",
        # One officer is not enough to approve anything.
        "2 of (cas, cyd, ida, sec1)",
    ],
)
def test_a_recovery_key_beside_the_officers_is_sound(among: str) -> None:
    """One group, groups of groups, and an officer who alone approves nothing."""
    assert set() == _failed(policy(recovery=replace(SOUND, among=parse_quorum(among))))


@pytest.mark.parametrize(
    ("among", "check"),
    [
        ("cas", "policy.recovery-shares"),
        ("1 of (cas, cyd)", "policy.recovery-shares"),
        ("2 of (1 of (cas, cyd), 2 of (erik, esme, ewan))", "policy.recovery-shares"),
        ("2 of (cas, cyd, cas)", "policy.recovery-shares"),
        ("1 of (cas, 2 of (erik, esme, ewan))", "policy.recovery-shares"),
        ("all(2 of (cas, all(cyd, ida)), erik)", "policy.recovery-shares"),
        # A threshold of everybody, and one above those who are still here.
        ("all(cas, cyd)", "policy.recovery-living"),
        ("2 of (cas, gone, left)", "policy.recovery-living"),
        ("2 of (cas, cyd, left)", "policy.recovery-living"),
        ("all(2 of (cas, cyd, ida), erik)", "policy.recovery-living"),
        # Those who can approve a release could rebuild the key as well.
        ("2 of (sec1, sec2, sec3)", "policy.recovery-apart"),
        ("3 of (cas, cyd, sec1, sec3)", "policy.recovery-apart"),
    ],
)
def test_a_policy_that_would_lock_everyone_out_or_let_approvers_in(among: str, check: str) -> None:
    """A set of shares that cannot be split, reached or trusted is refused before it is signed."""
    assert {check} == _failed(policy(recovery=replace(SOUND, among=parse_quorum(among))))


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "P384"},
        {"mlkem": bytes(1568)},
        {"spki": b"no key"},
        {"spki": public_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())},
        {"spki": principal("sec1", "officer").keys[1].spki},
    ],
    ids=["another suite", "half a hybrid", "no key", "another curve", "an officer's key"],
)
def test_a_recovery_key_of_the_wrong_kind_is_refused(change: dict[str, Any]) -> None:
    """A recovery key is on its suite's curve, whole, and nobody's own."""
    assert {"policy.recovery-key"} == _failed(policy(recovery=replace(SOUND, **change)))


def test_a_recovery_key_may_not_be_the_weakest_link() -> None:
    """Where shares must be P-384, so must the key that opens every bundle."""
    officers = [
        replace(p, keys=(p.keys[0], replace(p.keys[1], suite="P384", spki=_p384())))
        if "officer" in p.roles
        else p
        for p in policy().principals
    ]
    made = policy(principals=tuple(officers), weakest_suite="P384", recovery=SOUND)
    assert {"policy.recovery-key"} == _failed(made)


def _p384() -> bytes:
    return public_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
