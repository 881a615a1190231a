"""What signers of a policy are told of recovery keys, and of who could still seal."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from custody.formats.policy import Policy, ShareKey
from custody.ops.bundle import Bundle
from custody.ops.foresee import foresee
from tests.release import test_recovery as recovery
from tests.release.cast import NOW, Cast


def words(cast: Cast, policy: Policy, *bundles: Bundle) -> str:
    """Say what would follow from a next policy."""
    previous = max(cast.documents.policies, key=lambda s: s.predicate.version)
    version = previous.predicate.version + 1
    genesis = previous.predicate.genesis or previous.digest
    following = msgspec.structs.replace(policy, version=version, genesis=genesis)
    known = replace(cast.documents, manifests=tuple(b.statement for b in bundles))
    return "\n".join(foresee(following, previous=previous, known=known, now=NOW).words)


def test_what_stays_sealed_to_a_former_recovery_key_is_named(cast: Cast) -> None:
    """Bundles in use that the key of the next policy does not open, and no withdrawn one."""
    before = cast.seal()
    assert "recovery key" not in words(cast, cast.make_policy(), before)
    made = recovery.found(cast)
    first = made.record.predicate.in_policy(made.record.digest)
    bundle = cast.seal("second")
    same = cast.make_policy(recovery=first)
    assert "recovery key" not in words(cast, same, before, bundle)
    stranger = cast.people["pub"].signer.spki
    policy = cast.make_policy(recovery=msgspec.structs.replace(first, epoch=2, spki=stranger))
    said = words(cast, policy, before, bundle)
    assert f"bundle {before.statement.digest[:16]}… is sealed to no recovery key" in said
    kept = f"bundle {bundle.statement.digest[:16]}… stays sealed to recovery key"
    assert f"{kept} {first.key_id[:16]}…" in said
    gone = msgspec.structs.replace(policy, withdrawn=(bundle.statement.digest,))
    assert kept not in words(cast, gone, before, bundle)


def test_a_recovery_key_that_is_weaker_than_officers_keys_is_named(cast: Cast) -> None:
    """It opens every bundle alone: no officer's stronger key makes up for it."""
    made = recovery.found(cast)
    weak = made.record.predicate.in_policy(made.record.digest)
    policy = cast.make_policy(recovery=weak)
    first = policy.principal("sec1")
    assert first is not None
    strong = ShareKey(
        spki=cast.authority, suite="MLKEM1024_P384", mlkem=bytes(1568), token_class="software"
    )
    alone = msgspec.structs.replace(first, keys=(first.keys[0], strong))
    others = tuple(alone if p.id == "sec1" else p for p in policy.principals)
    mixed = msgspec.structs.replace(policy, principals=others)
    told = "the recovery key is P256: it opens every bundle"
    assert told in words(cast, mixed)
    assert told not in words(cast, policy)
    hybrid = msgspec.structs.replace(weak, suite="MLKEM1024_P384", mlkem=bytes(1568))
    assert "opens every bundle" not in words(cast, msgspec.structs.replace(mixed, recovery=hybrid))


def test_a_policy_under_which_nobody_could_seal_is_told(cast: Cast) -> None:
    """Releases go on for a while, so it is no lockout; who signs it should mean it."""
    policy = cast.make_policy()
    assert "nobody could seal" not in words(cast, policy)
    others = tuple(p for p in policy.principals if "publisher" not in p.roles)
    assert "nobody could seal" in words(cast, msgspec.structs.replace(policy, principals=others))
