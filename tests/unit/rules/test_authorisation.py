"""Who may let kept keys open in later boot states, and whose word on it counts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.signature import public_bytes, sign
from custody.formats.authorisation import Authorisation
from custody.formats.envelope import Statement, decode_statement, encode_statement
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.policy import Policy, Principal, SigningKey, Thresholds
from custody.rules.authorisation import judge_authorisations, state_message
from custody.rules.authorisers import authorisers
from custody.rules.policy import check_policy
from custody.rules.verdicts import passed
from tests.unit.people import NOW, key, policy, principal, signed, signer

GENESIS = "ab" * 32
GOLDEN = GoldenSet(
    environment=GENESIS,
    name="lab",
    notes="",
    epoch=2,
    oldest=1,
    bank="sha256",
    pcrs=tuple(PcrValue(pcr=pcr, value=f"{pcr:064x}") for pcr in (0, 2, 4, 7)),
    issued_at=NOW - timedelta(hours=1),
)


def golden(**changes: object) -> Statement[GoldenSet]:
    """Return the golden set, signed, with any field changed."""
    return decode_statement(GoldenSet, signed(replace(GOLDEN, **changes), "erik", "esme"))


def authorisation(
    who: str = "erik",
    *,
    of: Statement[GoldenSet] | None = None,
    state: GoldenSet = GOLDEN,
    state_by: str = "",
    environment: str = GENESIS,
) -> Statement[Authorisation]:
    """Return an authorisation, right or not."""
    said = Authorisation(
        environment=environment,
        golden=(of or golden()).digest,
        state_signature=sign(key(state_by or who), state_message(state)),
        authorised_at=NOW,
    )
    return decode_statement(Authorisation, signer(who).statement(said))


def failed(statement: Statement[Authorisation], made: Policy | None = None) -> set[str]:
    """Return the ids of the checks that fail."""
    (judged,) = judge_authorisations(golden(), [statement], made or policy())
    assert passed(judged.verdicts) == (not [v for v in judged.verdicts if v.outcome == "fail"])
    return {verdict.check for verdict in judged.verdicts if verdict.outcome == "fail"}


def test_a_good_one_counts() -> None:
    """An enroller's authorisation names him and the key a TPM knows him by."""
    (judged,) = judge_authorisations(golden(), [authorisation()], policy())
    assert passed(judged.verdicts)
    assert ("erik", public_bytes(key("erik").public_key())) == (judged.enroller, judged.spki)


@pytest.mark.parametrize("who", ["ida", "sec1", "pub", "stranger"])
def test_only_enrollers_authorise(who: str) -> None:
    """A custodian, an officer, a publisher and a stranger authorise nothing."""
    assert "authorisation.author" in failed(authorisation(who))


@pytest.mark.parametrize(
    "state",
    [
        replace(GOLDEN, environment="cd" * 32),
        replace(GOLDEN, name="other"),
        replace(GOLDEN, epoch=3),
        replace(GOLDEN, pcrs=GOLDEN.pcrs[:-1]),
        replace(GOLDEN, pcrs=(*GOLDEN.pcrs[:-1], PcrValue(pcr=7, value="ff" * 32))),
    ],
    ids=["environment", "name", "epoch", "registers", "values"],
)
def test_what_a_tpm_is_shown_is_this_state(state: GoldenSet) -> None:
    """A signature over another state, line or environment counts for nothing."""
    assert {"authorisation.state"} == failed(authorisation(state=state))


def test_both_signatures_are_by_one_key() -> None:
    """Nobody passes on another enroller's signature for TPMs as his own."""
    assert {"authorisation.state"} == failed(authorisation(state_by="esme"))


def test_of_another_environment_it_is_passed_over() -> None:
    """An authorisation says which environment it is for."""
    assert {"authorisation.environment"} == failed(authorisation(environment="cd" * 32))


def test_a_changed_signature_is_passed_over() -> None:
    """One whose own signature is not good counts for nothing, and hinders no other."""
    good = authorisation()
    other = authorisation("esme")
    bad = decode_statement(
        Authorisation,
        encode_statement(good.predicate, [replace(good.envelope.signatures[0], sig=b"0" * 70)]),
    )
    judged = judge_authorisations(golden(), [bad, other, good], policy())
    assert ["esme", "erik"] == [each.enroller for each in judged if passed(each.verdicts)]


def test_of_another_golden_set_it_is_not_looked_at() -> None:
    """What names another golden set says nothing about this one."""
    assert () == judge_authorisations(
        golden(), [authorisation(of=golden(epoch=3, notes="later"))], policy()
    )


def test_authorisers_are_enrollers_with_keys_that_tpms_know() -> None:
    """People come by id, their P-256 keys by key id; other curves and roles are left out."""
    wide = public_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    spare = principal("spare", "enroller").keys
    people = [
        replace(person, keys=(*person.keys, *spare, SigningKey(spki=wide, token_class="software")))
        if person.id == "esme"
        else replace(person, keys=(SigningKey(spki=wide, token_class="software"),))
        if person.id == "ewan"
        else person
        for person in policy().principals
    ]
    found = authorisers(policy(principals=tuple(people)))
    assert ["erik", "esme"] == [each.principal for each in found]
    ids = [SigningKey(spki=spki, token_class="software").key_id for spki in found[1].keys]
    assert (2, sorted(ids)) == (len(ids), ids)


def updatable(made: Policy) -> str:
    """Return how `policy.updatable` comes out."""
    (verdict,) = (v for v in check_policy(made) if v.check == "policy.updatable")
    return verdict.outcome


def test_a_policy_has_enough_authorisers() -> None:
    """The mode needs more enrollers with keys that TPMs know than the threshold, and 32 at most."""
    modes = ("once", "sealed-updatable")
    assert "not-applicable" == updatable(policy())
    assert "pass" == updatable(policy(modes=modes))
    three = Thresholds(root=2, enrolment=2, golden=3)
    assert "fail" == updatable(policy(modes=modes, thresholds=three))

    def many(count: int) -> tuple[Principal, ...]:
        more = [replace(principal(f"x{n:02}", "enroller"), id=f"x{n:02}") for n in range(count)]
        return (*policy().principals, *more)

    assert "pass" == updatable(policy(modes=modes, principals=many(29)))
    assert "fail" == updatable(policy(modes=modes, principals=many(30)))
