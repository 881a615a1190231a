"""Releases under way when the policy changes."""

from __future__ import annotations

from pathlib import Path

from custody.crypto.quorum import Person, Threshold
from tests.release.cast import TREE, Cast, person
from tests.release.expect import (
    QUORUM,
    changed,
    incomplete,
    refused,
)


def test_a_request_under_an_older_policy_is_refused(cast: Cast, tmp_path: Path) -> None:
    """When version 2 arrives, requests made under version 1 are asked again."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.next_policy()
    with refused(cast, "request.policy"):
        cast.open(bundle, request, answers, tmp_path / "out")
    with refused(cast, "request.policy"):
        cast.approve(bundle, request, "sec2")
    again = cast.request(bundle)
    fresh_answers = [cast.approve(bundle, again, who) for who in QUORUM]
    cast.open(bundle, again, fresh_answers, tmp_path / "out")


def test_both_trees_must_hold(cast: Cast, tmp_path: Path) -> None:
    """Sealed by one tree and released under another: shares by the first, signatures by both."""
    bundle = cast.seal()
    everybody = Threshold(
        k=2,
        of=(Threshold(k=3, of=TREE.of[0].of), Threshold(k=2, of=TREE.of[1].of)),  # type: ignore[union-attr]
    )
    cast.next_policy(quorum=everybody)
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    # By the tree it was sealed by this is a quorum; by the one in force it is not.
    with incomplete(cast, "sec2", "lead1"):
        cast.open(bundle, request, answers, tmp_path / "out")
    answers += [cast.approve(bundle, request, who) for who in ("sec2", "lead1")]
    cast.open(bundle, request, answers, tmp_path / "out")


def test_a_weaker_tree_in_force_does_not_weaken_the_seal(cast: Cast, tmp_path: Path) -> None:
    """A new policy with a weaker tree opens nothing with fewer shares than the seal needs."""
    bundle = cast.seal()
    weaker = Threshold(
        k=2, of=tuple(Person(principal=name) for name in ("sec1", "sec2", "sec3", "lead1", "lead2"))
    )
    cast.next_policy(quorum=weaker)
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "sec3")]
    with incomplete(cast, "lead1", "lead2"):
        cast.open(bundle, request, answers, tmp_path / "out")
    answers.append(cast.approve(bundle, request, "lead2"))
    cast.open(bundle, request, answers, tmp_path / "out")


def test_an_officer_removed_from_the_tree_does_not_sign(cast: Cast, tmp_path: Path) -> None:
    """An officer the newest policy dropped holds a share still, and it does not help."""
    bundle = cast.seal()
    cast.people["sec4"] = person("sec4", "officer")
    cast.certify(cast.people["sec4"])
    people = tuple(p for p in cast.make_policy().principals if p.id != "sec3")
    security = Threshold(k=2, of=tuple(Person(principal=n) for n in ("sec1", "sec2", "sec4")))
    tree = Threshold(k=2, of=(security, TREE.of[1]))
    cast.next_policy(principals=people, quorum=tree)
    request = cast.request(bundle)
    with refused(cast, "approve.officer"):
        cast.approve(bundle, request, "sec3")
    with refused(cast, "approve.slot"):
        # The newcomer has no share of what was sealed before him.
        cast.approve(bundle, request, "sec4")
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "sec2", "lead2")]
    forged = changed(cast, answers[1], "sec3", leaf="0/2")
    with incomplete(cast, "sec2", "sec3", "sec4"):
        cast.open(bundle, request, [answers[0], forged, answers[2]], tmp_path / "out")
    cast.open(bundle, request, answers, tmp_path / "out")


def test_a_removed_enrollers_record_counts_no_more(cast: Cast) -> None:
    """An enrolment record needs its threshold in the policy in force."""
    bundle = cast.seal()
    policy = cast.make_policy()
    cast.people["enr4"] = person("enr4", "enroller")
    cast.certify(cast.people["enr4"])
    people = tuple(p for p in cast.make_policy().principals if p.id != "enr2")
    assert 2 == policy.thresholds.enrolment
    cast.next_policy(principals=people)
    with refused(cast, "host.enrolled"):
        cast.request(bundle)
