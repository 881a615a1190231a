"""What evidence must show, check by check.  docs/attestation.md says why, and by which tests."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as change

from custody.formats.envelope import Signature, decode_statement, encode_statement
from custody.formats.evidence import spki
from custody.formats.request import Request
from custody.rules import certificate_path
from custody.rules.attestation import check_evidence
from custody.rules.verdicts import passed
from tests.unit.rules.attestation_vectors import KEPT
from tests.unit.rules.attesting import Case, evidence, evidence_with_log
from tests.unit.rules.wrong_evidence import cases

_LOG_ONLY = {"V53", "V54", "V55", "V56"}


def fails(case: Case) -> set[str]:
    """Return which checks fail."""
    verdicts = case.judged_by(check_evidence)
    return {v.check.removeprefix("attestation.") for v in verdicts if v.outcome == "fail"}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_wrong_fails_its_check_and_no_other(case: Case) -> None:
    """Evidence wrong in one thing fails by the ids of that thing alone; what is good passes."""
    assert case.fails == fails(case)
    assert passed(case.judged_by(check_evidence)) is not bool(case.fails)


@pytest.mark.parametrize("name", KEPT.names)
def test_a_vector_fails_as_it_says(name: str) -> None:
    """What a software TPM made fails by exactly the checks written in its file."""
    judged = KEPT.judged(name)
    assert KEPT.expected(name) == {v.check for v in judged if v.outcome == "fail"}
    assert passed(judged) is not bool(KEPT.expected(name))


def test_every_check_has_a_case_that_it_alone_refuses() -> None:
    """For each check there is evidence that is wrong in nothing else, so none is there for show."""
    made = {
        v.check.removeprefix("attestation.") for v in evidence().judged_by(check_evidence)
    } - _LOG_ONLY
    alone = {check for case in cases() if len(case.fails) == 1 for check in case.fails}
    assert made <= alone


def test_every_check_is_written_down() -> None:
    """Good evidence shows every check there is, each passed, or not applicable and why."""
    verdicts = evidence().judged_by(check_evidence)
    assert {"pass", "not-applicable"} == {v.outcome for v in verdicts}
    assert _LOG_ONLY == {
        v.check.removeprefix("attestation.") for v in verdicts if v.outcome == "not-applicable"
    }
    assert all(v.reason and v.subject for v in verdicts)


def test_a_changed_component_is_named() -> None:
    """A boot state that is not the golden one is refused in the words of the log it showed."""
    (said,) = [v.reason for v in KEPT.judged("evil-boot") if v.check == "attestation.V51"]
    assert "pcr 0" in said
    assert "changed" in said or "instead of" in said


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_of_the_quote_is_refused(at: int, by: int) -> None:
    """Whatever byte of attestation or signature is changed, a check fails and nothing is raised."""
    good = evidence().statement
    (held,) = good.envelope.signatures
    at %= len(held.sig)
    sig = held.sig[:at] + bytes([held.sig[at] ^ by]) + held.sig[at + 1 :]
    case = _with_quote(sig)
    assert fails(case)


@given(st.binary(max_size=300))
def test_junk_for_a_quote_is_refused(sig: bytes) -> None:
    """Bytes that are no quote at all fail a check; nothing is raised."""
    assert fails(_with_quote(sig or b"\0"))


@given(
    st.sampled_from(["public", "parent_public", "creation_data", "attest", "signature"]),
    st.binary(min_size=1, max_size=300),
)
def test_junk_for_a_structure_is_refused(which: str, data: bytes) -> None:
    """Whatever stands in a structure's place, the request is refused and nothing is raised."""
    case = evidence(request=lambda r: change(r, key=change(r.key, **{which: data})))
    assert fails(case)


def _with_quote(sig: bytes) -> Case:
    from dataclasses import replace

    case = evidence()
    (held,) = case.statement.envelope.signatures
    body = case.statement.predicate
    data = encode_statement(body, [Signature(keyid=held.keyid, sig=sig)])
    return replace(case, statement=decode_statement(Request, data))


def test_the_key_sealed_to_is_the_one_attested() -> None:
    """Officers seal to H, and to no other key of the request."""
    request = evidence().statement.predicate
    assert spki(request.key.public) == request.recipient
    assert request.recipient not in {spki(request.ak_public), spki(request.key.parent_public)}


def test_evidence_with_a_log_of_64_kib_is_judged_in_milliseconds() -> None:
    """Full evidence takes less than 10 ms on a quiet machine; the bound allows for a busy one."""
    case = evidence_with_log(65536)
    assert set() == fails(case)
    spent = []
    for _ in range(5):
        begun = time.perf_counter()
        case.judged_by(check_evidence)
        spent.append(time.perf_counter() - begun)
    assert 65_000 < len(case.statement.predicate.event_log) <= 65536
    assert min(spent) < 0.05


def test_a_certificate_path_is_walked_once_for_a_moment() -> None:
    """The same chain, lists and moment are not walked again; another moment is."""
    held = KEPT.vector("ek-good")
    KEPT.judged("ek-good")
    before = certificate_path._walk.cache_info()
    KEPT.judged("ek-good")
    again = certificate_path._walk.cache_info()
    assert (before.hits + 1, before.misses) == (again.hits, again.misses)
    KEPT.judged_enrolment({**held, "moment": "2027-01-05T12:00:01Z"})
    assert again.misses + 1 == certificate_path._walk.cache_info().misses
