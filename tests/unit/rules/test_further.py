"""Evidence of other kinds: judged by a verifier that is given, or not judged, and never assumed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pytest
from msgspec.structs import replace

from custody.errors import Malformed, Refused
from custody.formats.envelope import Statement, decode_statement, encode_statement, payload_of
from custody.formats.request import MAX_FURTHER_BYTES, Further, Request
from custody.rules.attestation import check_evidence
from custody.rules.further import FurtherVerifier, check_further
from tests.unit.crypto.vectors import read
from tests.unit.people import NOW
from tests.unit.rules.attesting import evidence, on

GPU, VM = "tag:example.com,2027:gpu", "tag:example.com,2027:vm"
VECTORS = read("further/cases.txt", "expect", "demanded", "verifiers", "held")


@dataclass(frozen=True)
class Saying:
    """A verifier of the tests alone: ``good NAME`` is good evidence of NAME, nothing else is."""

    def verify(self, evidence: bytes, *, request: Statement[Request], now: datetime) -> str:
        word, _, name = evidence.decode("ascii", "replace").partition(" ")
        if word not in {"good", "bad"}:
            raise Malformed("not what this verifier reads")
        if word == "bad" or now != NOW:
            raise Refused("says that it is bad", check="test.evidence")
        return f"{name} beside {request.predicate.host}"


SAYING: FurtherVerifier = Saying()


def with_further(*held: Further) -> Statement[Request]:
    """Make good evidence with more beside it."""
    return evidence(request=on(further=held)).statement


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["comment"])
def test_a_vector_comes_out_as_it_says(vector: dict[str, str]) -> None:
    """By what is demanded, held and can be judged, the checks come out as the file says."""
    held = [entry.split("=", 1) for entry in vector["held"].split(";") if entry]
    verdicts = check_further(
        with_further(*(Further(type=kind, evidence=said.encode()) for kind, said in held)),
        demanded=vector["demanded"].split(),
        verifiers=dict.fromkeys(vector["verifiers"].split(), SAYING),
        now=NOW,
    )
    assert vector["expect"].split() == [f"{v.check}:{v.outcome}" for v in verdicts]


def test_what_a_verifier_says_is_in_the_verdict() -> None:
    """The judge reads the verifier's words, with the type before them."""
    verdicts = check_further(
        with_further(Further(type=GPU, evidence=b"good H100")),
        demanded=(),
        verifiers={GPU: SAYING},
        now=NOW,
    )
    assert f"{GPU}: H100 beside gpu-1" == verdicts[-1].reason


def test_evidence_without_a_verifier_is_called_not_judged() -> None:
    """Nobody may read a pass where nothing was looked at."""
    verdicts = check_further(
        with_further(Further(type=VM, evidence=b"good")), demanded=(), verifiers={}, now=NOW
    )
    assert f"{VM}: not judged" == verdicts[-1].reason
    assert "not-applicable" == verdicts[-1].outcome


def test_a_fault_of_a_verifier_is_no_pass() -> None:
    """What raises anything else than a refusal goes up, and nothing is judged good by it."""

    class Broken:
        def verify(self, evidence: bytes, *, request: Statement[Request], now: datetime) -> str:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_further(
            with_further(Further(type=GPU, evidence=b"good")),
            demanded=(GPU,),
            verifiers={GPU: Broken()},
            now=NOW,
        )


def test_further_evidence_is_under_the_quote() -> None:
    """Evidence that is exchanged after the AK quoted leaves a quote over another request."""
    statement = with_further(Further(type=GPU, evidence=b"good H100"))
    exchanged = replace(statement.predicate, further=(Further(type=GPU, evidence=b"good H200"),))
    other = decode_statement(Request, encode_statement(exchanged, statement.envelope.signatures))
    case = evidence()
    failed = {
        v.check
        for v in check_evidence(
            other,
            enrolment=case.enrolment,
            golden=case.golden,
            policy=case.policy,
            remembered=None,
        )
        if v.outcome == "fail"
    }
    assert {"attestation.V24"} == failed


@pytest.mark.parametrize(
    "held",
    [
        (Further(type=VM, evidence=b"x"), Further(type=GPU, evidence=b"x")),
        (Further(type=GPU, evidence=b"x"), Further(type=GPU, evidence=b"y")),
        (Further(type=GPU, evidence=b""),),
        (Further(type=GPU, evidence=b"x" * (MAX_FURTHER_BYTES + 1)),),
        (Further(type="gpu", evidence=b"x"),),
        (Further(type="a:b c", evidence=b"x"),),
        (Further(type="a:" + "b" * 199, evidence=b"x"),),
        tuple(Further(type=f"a:{n}", evidence=b"x") for n in range(9)),
    ],
    ids=["order", "twice", "empty", "too long", "no URI", "a space", "a long type", "too many"],
)
def test_further_evidence_has_one_form(held: tuple[Further, ...]) -> None:
    """Types in order, each once; sizes and numbers have limits."""
    with pytest.raises((Malformed, ValueError)):
        payload_of(replace(evidence().statement.predicate, further=held))
