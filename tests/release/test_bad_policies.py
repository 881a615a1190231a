"""Policies nobody may stand on."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from custody.crypto.quorum import Person, Threshold
from custody.formats.case import Documents, sort_documents
from custody.formats.policy import Policy
from tests.release.cast import NOW, TREE, Cast, person
from tests.release.expect import refused

replace = msgspec.structs.replace


def test_an_older_policy_is_refused(cast: Cast) -> None:
    """Whoever has seen version 2 does not go back to version 1."""
    old = cast.documents
    cast.next_policy()
    cast.situation("sec1")
    with refused(cast, "policy.rollback"):
        cast.situation("sec1", documents=old)


def test_an_expired_policy_is_refused(cast: Cast) -> None:
    """A policy past `expiresAt` decides nothing."""
    with refused(cast, "policy.expired"):
        cast.situation("sec1", now=NOW + timedelta(days=301))


def test_a_policy_not_yet_in_force_is_refused(cast: Cast) -> None:
    """A clock set back before the policy was issued finds none in force."""
    with refused(cast, "policy.expired"):
        cast.situation("sec1", now=NOW - timedelta(days=2))


def _new_custodians(cast: Cast) -> tuple[Policy, list[str]]:
    """Write version 2 with other custodians."""
    for number in (4, 5, 6):
        cast.people[f"cus{number}"] = person(f"cus{number}", "custodian")
        cast.certify(cast.people[f"cus{number}"])
    policy = cast.make_policy(genesis=cast.pin, version=2)
    kept = tuple(p for p in policy.principals if p.id not in {"cus1", "cus2", "cus3"})
    return replace(policy, principals=kept), ["cus4", "cus5"]


@pytest.mark.parametrize("signers", [("cus1",), ("cus1", "cus2"), ("cus4", "cus5"), ("sec1",)])
def test_one_threshold_is_not_enough(cast: Cast, signers: tuple[str, ...]) -> None:
    """A version signed by the old threshold only, or by the new one only, stops everybody."""
    policy, _ = _new_custodians(cast)
    cast.policies.append(cast.sign_policy(policy, *signers))
    cast.refresh()
    with refused(cast, "policy.threshold"):
        cast.situation("sec1")


def test_both_thresholds_are_enough(cast: Cast) -> None:
    """The same version signed by both is in force."""
    policy, new = _new_custodians(cast)
    cast.policies.append(cast.sign_policy(policy, "cus1", "cus2", *new))
    cast.refresh()
    assert 2 == cast.situation("sec1").trusted.policy.version


def test_a_missing_version_stops_everybody(cast: Cast) -> None:
    """Version 3 without version 2 is a newer policy that cannot be followed: stop, do not guess."""
    cast.next_policy()
    cast.next_policy()
    del cast.policies[1]
    cast.documents = Documents()
    cast.refresh()
    with refused(cast, "policy.gap"):
        cast.situation("sec1")


def test_two_policies_of_one_version_are_a_fork(cast: Cast) -> None:
    """A root threshold that signs two versions 2 is believed in neither."""
    cast.next_policy()
    other = cast.make_policy(genesis=cast.pin, version=2, modes=("once", "sealed"))
    cast.policies.append(cast.sign_policy(other))
    cast.refresh()
    with refused(cast, "policy.fork"):
        cast.situation("sec1")


def test_a_fork_shown_later_is_seen(cast: Cast) -> None:
    """Who saw one version 2 refuses the other, even if it is shown alone."""
    first = cast.documents
    cast.next_policy()
    cast.situation("sec1")
    other = cast.make_policy(genesis=cast.pin, version=2, modes=("once", "sealed"))
    heap = sort_documents([("p2.dsse", cast.sign_policy(other))])
    forked = replace_policies(first, heap)
    with refused(cast, "policy.fork"):
        cast.situation("sec1", documents=forked)


def replace_policies(base: Documents, more: Documents) -> Documents:
    """Add policies to a heap."""
    import dataclasses

    return dataclasses.replace(base, policies=(*base.policies, *more.policies))


def test_another_environments_policies_say_nothing_here(cast: Cast) -> None:
    """A folder may hold the policies of two environments: neither stops the other."""
    staging = cast.make_policy(environment="staging")
    first = cast.sign_policy(staging)
    genesis = sort_documents([("s.dsse", first)]).policies[0].digest
    later = replace(staging, genesis=genesis, version=2)
    cast.refresh(("staging-1.dsse", first), ("staging-2.dsse", cast.sign_policy(later)))
    assert "production" == cast.situation("sec1").trusted.policy.environment


UNSOUND: dict[str, tuple[dict[str, object], str]] = {
    "one officer suffices": (
        {"quorum": Threshold(k=1, of=(*TREE.of, Person(principal="lead1")))},
        "policy.quorum",
    ),
    "one person in two groups": (
        {"quorum": Threshold(k=2, of=(*TREE.of, Person(principal="sec1")))},
        "policy.quorum",
    ),
    "more asked than there are": (
        {"quorum": Threshold(k=3, of=TREE.of)},
        "policy.quorum",
    ),
    "a stranger in the tree": (
        {"quorum": Threshold(k=3, of=(*TREE.of, Person(principal="pub")))},
        "policy.officers",
    ),
    "lives too long": ({"expires_at": NOW + timedelta(days=500)}, "policy.life"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_policy_is_refused_though_signed(cast: Cast, name: str) -> None:
    """A signature does not make an unsound policy sound."""
    changes, check = UNSOUND[name]
    cast.next_policy(**changes)
    with refused(cast, check):
        cast.situation("sec1")


def test_an_empty_list_of_registers_is_no_policy(cast: Cast) -> None:
    """A policy that asks for no register does not parse: nothing measured is nothing approved."""
    host = replace(cast.make_policy().host, pcrs=())
    with pytest.raises(Exception, match="pcrs"):
        cast.next_policy(host=host)


def test_registers_that_software_resets_are_refused(cast: Cast) -> None:
    """A policy over PCR 16 or 23 would approve whatever software extends there."""
    for pcr in (16, 23):
        cast.policies = cast.policies[:1]
        cast.documents = Documents()
        host = replace(cast.make_policy().host, pcrs=(0, pcr))
        cast.next_policy(host=host)
        with refused(cast, "policy.pcrs"):
            cast.situation("sec1")


def test_a_key_of_two_people_is_refused(cast: Cast) -> None:
    """One key listed for two principals would let one person count twice."""
    cast.people["sec2"].signing = cast.people["sec1"].signing
    policy = cast.make_policy(genesis=cast.pin, version=2)
    cast.policies.append(cast.sign_policy(policy))
    cast.refresh()
    with refused(cast, "policy.keys-distinct"):
        cast.situation("lead1")


def test_a_wrong_pin_finds_nothing(cast: Cast) -> None:
    """A pin that no policy here has is refused: files do not speak for themselves."""
    from custody.ops.home import Home
    from custody.ops.trust import pin

    home = Home(cast.folder / "homes" / "newcomer")
    with refused(cast, "policy.pin"):
        pin(home, documents=cast.documents, digest="ab" * 32, now=NOW)
    assert not home.has_memory()


@pytest.mark.parametrize("name", UNSOUND)
def test_a_strangers_next_version_hides_no_good_one(cast: Cast, name: str) -> None:
    """Beside the real version 2, one that nobody signed is passed over, whatever it says."""
    real = cast.next_policy()
    junk = msgspec.structs.replace(real.predicate, **UNSOUND[name][0])
    cast.refresh(("0-junk.dsse", cast.sign(junk, "pub")), ("z-junk.dsse", cast.sign(junk, "pub")))
    assert real.digest == cast.situation("sec1").trusted.digest
