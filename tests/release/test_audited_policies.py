"""Policies that do not follow each other, as an auditor meets them in what he was sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as with_documents

import msgspec
import pytest

from custody.formats.case import Documents, sort_documents
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.ops.audit import audit_case
from tests.release.cast import Cast, person
from tests.release.expect import QUORUM, audit, case_of, failed


def case(cast: Cast) -> Documents:
    """Run one release to its end, under the newest policy."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    return case_of(
        cast, bundle, request, answers, cast.open(bundle, request, answers, cast.folder / "o")
    )


def third(cast: Cast) -> Documents:
    """A release under version 3."""
    cast.next_policy()
    cast.next_policy()
    return case(cast)


def holding(found: Documents, *policies: bytes) -> Documents:
    """The same with these policies, and no others."""
    named = [(f"{n}.dsse", data) for n, data in enumerate(policies)]
    return with_documents(found, policies=sort_documents(named).policies)


CHAINS: dict[str, tuple[Callable[[Cast], tuple[bytes, ...]], str]] = {
    "a gap": (lambda cast: (cast.policies[0], cast.policies[2]), "policy.gap"),
    "a fork": (
        lambda cast: (
            *cast.policies,
            cast.sign_policy(
                msgspec.structs.replace(
                    decode_statement(Policy, cast.policies[1]).predicate, modes=("once", "sealed")
                )
            ),
        ),
        "policy.fork",
    ),
    "signed by one custodian": (
        lambda cast: (
            *cast.policies[:2],
            cast.sign_policy(decode_statement(Policy, cast.policies[2]).predicate, "cus1"),
        ),
        "policy.threshold",
    ),
    "none that the request names": (lambda cast: tuple(cast.policies[:2]), "case.policy"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_that_does_not_hold_is_refused_by_name(cast: Cast, name: str) -> None:
    """The release was sound; with this chain it is not, and the reason is named."""
    found = third(cast)
    assert audit(cast, found).sound
    change, check = CHAINS[name]
    report = audit(cast, holding(found, *change(cast)))
    assert check in failed(report), failed(report)
    assert not report.sound


@pytest.mark.parametrize("alone", [("cus1", "cus2"), ("cus4", "cus5")])
def test_a_version_signed_by_only_one_threshold_is_refused(
    cast: Cast, alone: tuple[str, ...]
) -> None:
    """Neither can custodians who are none any more say who comes after them, nor those who come
    say so themselves.
    """
    for n in (4, 5, 6):
        cast.people[f"cus{n}"] = person(f"cus{n}", "custodian")
        cast.certify(cast.people[f"cus{n}"])
    policy = cast.make_policy(genesis=cast.pin, version=2)
    kept = tuple(p for p in policy.principals if p.id not in {"cus1", "cus2", "cus3"})
    policy = msgspec.structs.replace(policy, principals=kept)
    cast.policies.append(cast.sign_policy(policy, "cus1", "cus2", "cus4", "cus5"))
    cast.refresh()
    found = case(cast)
    assert audit(cast, found).sound
    report = audit(cast, holding(found, cast.policies[0], cast.sign_policy(policy, *alone)))
    assert "policy.threshold" in failed(report)
    assert not report.sound


def test_a_release_from_before_the_pin_is_refused(cast: Cast) -> None:
    """An auditor who was told version 2 takes no release that was rolled back to version 1."""
    found = case(cast)
    newer = cast.next_policy()
    both = holding(found, *cast.policies)
    report = audit_case(both, pin=newer.digest)
    assert not report.sound
    assert any(check.startswith("policy.") for check in failed(report)), failed(report)
