"""Whose shares give what: one person under two names, and bundles sealed again or re-wrapped."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec

from custody.crypto.quorum import Node, Person, Threshold
from custody.formats.case import Documents
from custody.formats.manifest import Core
from custody.formats.policy import Policy, Principal, ShareKey
from custody.ops.bundle import Bundle
from custody.ops.foresee import foresee
from custody.ops.holdings import Environment, ever_held, read_environment, who_can_open
from custody.ops.home import Home
from custody.ops.seal import SealOrder, seal_model
from custody.ops.trust import current, pin
from tests.release import test_recovery as recovery
from tests.release.cast import NOW, Cast, PersonKeys, person
from tests.release.expect import refused, resealed


def tree_of(*names: str) -> Node:
    """Two of these."""
    return Threshold(k=2, of=tuple(Person(principal=name) for name in names))


def known(cast: Cast, *bundles: Bundle) -> Documents:
    """Return the public files, with the manifests of bundles."""
    return replace(cast.documents, manifests=tuple(b.statement for b in bundles))


def environment(cast: Cast, *bundles: Bundle) -> Environment:
    """Read the environment as an auditor does who pinned version 1."""
    return read_environment(known(cast, *bundles), pin=cast.pin, now=NOW)


def people(cast: Cast, *gone: str) -> tuple[Principal, ...]:
    """Return everybody of the cast but some, as a policy lists them."""
    there = (p.principal() for name, p in cast.people.items() if name not in gone)
    return tuple(sorted(there, key=lambda p: p.id))


def one_token_two_names(cast: Cast) -> None:
    """Let sec3's first keys leave in version 2, and come back in version 3 as sec9's."""
    first = cast.people["sec3"]
    second = person("sec3", "officer")
    cast.people["sec3"] = second
    cast.certify(second)
    cast.next_policy(principals=people(cast))
    cast.people["sec9"] = PersonKeys("sec9", first.roles, first.signing, first.sharing)
    cast.certify(cast.people["sec9"])
    cast.next_policy(principals=people(cast), quorum=tree_of("sec1", "sec3", "sec9"))


def test_nothing_is_sealed_that_one_person_could_open_by_two_names(cast: Cast) -> None:
    """Each version is sound by itself and moves no key; over three one token is two leaves."""
    one_token_two_names(cast)
    model = cast.model()
    with refused(cast, "manifest.alone"):
        cast.seal_into(model, cast.folder / "bundle")


def test_who_ever_held_a_threshold_is_named(cast: Cast) -> None:
    """A publisher who came later cannot know the first version; an auditor does, and says it."""
    one_token_two_names(cast)
    late = Home(cast.folder / "homes" / "late")
    newer = replace(cast.documents, policies=cast.documents.policies[-2:])
    newest = max(newer.policies, key=lambda s: s.predicate.version)
    pin(late, documents=newer, digest=newest.digest, now=NOW)
    out = cast.folder / "bundle"
    seal_model(
        cast.model(),
        out,
        SealOrder(name="tiny", version="1", not_after=NOW + timedelta(days=1)),
        situation=current(late, documents=newer, now=NOW),
        signer=cast.people["pub"].signer,
    )
    (key,) = ever_held(environment(cast, Bundle.at(out)))
    (alone,) = key.alone
    assert (("sec3", "sec9"), ("1", "2")) == (alone.names, alone.leaves)


def test_an_honest_bundle_is_nobodys_alone(cast: Cast) -> None:
    """Two tokens of one officer are one leaf, and nobody holds two."""
    bundle = cast.seal()
    (key,) = ever_held(environment(cast, bundle))
    assert () == key.alone


def test_a_key_that_moves_to_another_name_ends_the_chain(cast: Cast) -> None:
    """Whoever signed it: the next version may not give one's key to another."""
    third = cast.people["sec3"]
    cast.people["sec9"] = PersonKeys("sec9", third.roles, third.signing, third.sharing)
    cast.next_policy(
        principals=people(cast, "sec3"),
        quorum=tree_of("sec1", "sec2", "sec9"),
    )
    with refused(cast, "policy.keys-stay"):
        cast.situation("sec1")


def test_what_was_withdrawn_stays_withdrawn(cast: Cast) -> None:
    """A next version that forgets a withdrawn manifest is not gone on to, whoever signed it."""
    bundle = cast.seal()
    cast.next_policy(withdrawn=(bundle.statement.digest,))
    cast.next_policy(withdrawn=())
    with refused(cast, "policy.withdrawn-kept"):
        cast.situation("sec1")


def rewrapped(cast: Cast, bundle: Bundle) -> Bundle:
    """Sign a manifest over the same payload and key that replaces the bundle's."""
    old = bundle.statement.digest

    def replacing(core: Core) -> Core:
        return msgspec.structs.replace(core, replaces=old)

    return resealed(cast, bundle, core=replacing)


def words(cast: Cast, policy: Policy, *bundles: Bundle) -> str:
    """Say what would follow from a next policy."""
    previous = max(cast.documents.policies, key=lambda s: s.predicate.version)
    following = msgspec.structs.replace(policy, version=2, genesis=previous.digest)
    found = foresee(following, previous=previous, known=known(cast, *bundles), now=NOW)
    return "\n".join(found.words)


def test_a_replacement_is_told_by_its_key(cast: Cast) -> None:
    """Re-wrapped: who opens the old one has the new one.  Re-encrypted: he has nothing of it."""
    bundle = cast.seal()
    policy = cast.make_policy(withdrawn=(bundle.statement.digest,))
    again = rewrapped(cast, bundle)
    assert "re-wrapped: the same key in a new envelope" in words(cast, policy, bundle, again)
    anew = cast.seal("anew", replaces=bundle.statement.digest)
    said = words(cast, policy, bundle, anew)
    assert "re-encrypted: another key" in said
    assert "re-wrapped" not in said
    assert "nothing here replaces it" in words(cast, policy, bundle)
    assert "its manifest is not here" in words(cast, policy)


def test_one_key_in_two_envelopes_is_one_key(cast: Cast) -> None:
    """A re-wrapped bundle is counted with the one it replaces."""
    bundle = cast.seal()
    again = rewrapped(cast, bundle)
    (key,) = ever_held(environment(cast, bundle, again))
    assert {bundle.statement.digest, again.statement.digest} == {
        sealing.manifest.digest for sealing in key.manifests
    }


def test_a_strangers_manifest_is_passed_over_by_name(cast: Cast) -> None:
    """It says nothing about anybody's shares, and is not silently left out."""
    bundle = cast.seal()
    foreign = resealed(
        cast,
        bundle,
        by="sec1",
        core=lambda core: msgspec.structs.replace(core, replaces=bundle.statement.digest),
    )
    found = environment(cast, bundle, foreign)
    assert [bundle.statement.digest] == [s.manifest.digest for s in found.sealings]
    assert [foreign.statement.digest] == [one.manifest for one in found.passed_over]


def test_a_bundle_that_is_over_is_nobodys_by_the_rules_and_theirs_by_shares(cast: Cast) -> None:
    """After its time no release; the shares know no time."""
    bundle = cast.seal()
    later = NOW + timedelta(days=31)
    found = read_environment(known(cast, bundle), pin=cast.pin, now=later)
    (openers,) = who_can_open(found)
    assert "its time ended" in openers.forbidden
    assert () == openers.allowed
    assert ("lead1", "sec1", "sec2") in (openers.able or ())


def test_an_officer_with_a_strong_and_a_weak_key_is_named(cast: Cast) -> None:
    """A bundle sealed to both is as weak as the weaker."""
    policy = cast.make_policy()
    first = policy.principal("sec1")
    assert first is not None
    strong = ShareKey(
        spki=cast.authority, suite="MLKEM1024_P384", mlkem=bytes(1568), token_class="software"
    )
    both = msgspec.structs.replace(first, keys=(*first.keys, strong))
    others = tuple(both if p.id == "sec1" else p for p in policy.principals)
    said = words(cast, msgspec.structs.replace(policy, principals=others))
    assert "sec1 has share keys of P256 and MLKEM1024_P384" in said
    assert "share keys of" not in words(cast, policy)


def test_a_re_wrap_by_recovery_is_told_as_one(cast: Cast) -> None:
    """After the glass was broken there are two envelopes of one key, and signers read so."""
    made = recovery.found(cast)
    bundle = cast.seal()
    recovery.lose_every_officer(cast)
    done = recovery.broken(cast, bundle, made, recovery.words(made, "cus3", "enr1", "cus1", "enr3"))
    again = recovery.signed(cast, bundle, done, cast.folder / "again")
    found = environment(cast, bundle, again)
    (key,) = ever_held(found)
    assert 2 == len(key.manifests)
    assert () == key.alone
    old, new = sorted(who_can_open(found), key=lambda o: len(o.allowed or ()))
    assert {"left"} == {keeper.standing for keeper in old.keepers}
    assert (("new1", "new2"),) == new.allowed


def test_no_re_wrap_gives_one_person_a_threshold(cast: Cast) -> None:
    """new1's token was once listed as new2's: the publisher's tool does not sign for both."""
    token = person("new2", "officer")
    cast.people["new2"] = token
    cast.certify(token)
    cast.next_policy(principals=people(cast))
    del cast.people["new2"]
    cast.next_policy(principals=people(cast))
    made = recovery.found(cast)
    bundle = cast.seal()
    recovery.lose_every_officer(cast)
    cast.people["new1"] = PersonKeys("new1", token.roles, token.signing, token.sharing)
    cast.certify(cast.people["new1"])
    newest = max(cast.documents.policies, key=lambda s: s.predicate.version).predicate
    others = tuple(p for p in newest.principals if p.id != "new1")
    everybody = sorted((*others, cast.people["new1"].principal()), key=lambda p: p.id)
    cast.next_policy(principals=tuple(everybody))
    done = recovery.broken(cast, bundle, made, recovery.words(made, "cus3", "enr1", "cus1", "enr3"))
    with refused(cast, "manifest.alone"):
        recovery.signed(cast, bundle, done, cast.folder / "again")
