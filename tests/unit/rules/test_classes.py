"""What things are called: TPMs and tokens by class, in what is signed and in what is judged."""

from __future__ import annotations

from typing import get_args

import pytest
from msgspec.structs import replace

from custody.formats.policy import Policy, TokenClass, TpmClass, TrustClass
from custody.ops.policy_words import describe
from custody.rules.admission import check_admission
from custody.rules.policy import check_policy
from custody.rules.trust import check_author
from custody.rules.verdicts import Verdict
from tests.unit.people import policy, signed_policy, signer
from tests.unit.rules.test_admission import ALICE, KEYS, failed


def judged(made: Policy, check: str) -> Verdict:
    """Return one verdict on a policy."""
    return next(v for v in check_policy(made) if v.check == check)


def with_token(name: str, token: TokenClass) -> Policy:
    """Return a policy in which one person's token is of another class."""
    people = tuple(
        replace(p, keys=tuple(replace(k, token_class=token) for k in p.keys)) if p.id == name else p
        for p in policy().principals
    )
    return replace(policy(), principals=people)


def test_a_policy_takes_the_classes_it_names_and_no_other() -> None:
    """A software key in a policy for devices, and the other way round, makes it unsound."""
    assert "pass" == judged(policy(), "policy.token-classes").outcome
    for made, words in (
        (replace(policy(), token_classes=("self-asserted",)), "software token"),
        (with_token("sec1", "self-asserted"), "sec1's self-asserted token"),
    ):
        verdict = judged(made, "policy.token-classes")
        assert ("fail", True) == (verdict.outcome, words in verdict.reason)
    both = replace(with_token("sec1", "self-asserted"), token_classes=("self-asserted", "software"))
    assert "pass" == judged(both, "policy.token-classes").outcome


def test_who_signs_a_policy_reads_every_class() -> None:
    """The words of a policy say what TPMs and tokens it takes, and where each key is."""
    words = "\n".join(describe(policy()))
    assert "a host's TPM is software" in words
    assert "people's keys are in software tokens" in words
    keys = [line for line in words.splitlines() if " key " in line and "vendor" not in line]
    assert keys
    assert all(line.endswith(", software token") for line in keys)


def test_a_verdict_on_an_author_names_the_class_of_his_token() -> None:
    """Nobody reads a person's signature as a device's where his key is in software."""
    made = policy()
    signed = signed_policy(made, "ida")
    _, _, verdicts = check_author(signed, made, role="custodian", check="policy", subject="policy")
    assert "ida is a custodian, by a key in a software token" == verdicts[0].reason
    assert signer("ida").key_id


@pytest.mark.parametrize("token", get_args(TokenClass))
def test_nobody_calls_his_own_token_attested_by_its_vendor(token: TokenClass) -> None:
    """With no verifier of vendors' chains, no admission may claim one."""
    offer = replace(ALICE.offer(), token_class=token)
    verdicts = check_admission(ALICE.send(offer), keys=KEYS)
    assert (["admission.token"] if token == "vendor-attested" else []) == failed(verdicts)


def test_the_classes_are_those_of_the_documents() -> None:
    """Four for TPMs, one for hosts that have none, three for tokens, the strongest first."""
    assert ("hardware", "firmware", "virtual", "software") == get_args(TpmClass)
    assert (*get_args(TpmClass), "hsm-key") == get_args(TrustClass)
    assert ("vendor-attested", "self-asserted", "software") == get_args(TokenClass)
