"""Published faults of other verifiers, TPMs and machines: what each would be here, and its end.

Named after the identifier each has in public.  Where a whole release or a device is needed, the
test that has it is named in docs/attestation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as change

from custody.crypto.bind import bind
from custody.encoding import MAX_STATEMENT_BYTES, decode, encode
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.enrolment import Answer, EnrolmentRecord
from custody.formats.envelope import decode_envelope
from custody.formats.eventlog import MAX_EVENT_BYTES, parse_event_log
from custody.formats.evidence import MAGIC, parse_attest, unpack_quote
from custody.formats.policy import HostRequirements
from custody.formats.request import Request
from custody.formats.tpmwire import MAX_STRUCTURE_BYTES
from custody.lab import bootlog
from custody.rules.attestation import check_evidence
from custody.rules.verdicts import Ledger, require
from tests.unit.ops.test_desk import Served
from tests.unit.ops.test_enroll import REQUEST, Enroller
from tests.unit.rules.attestation_vectors import KEPT
from tests.unit.rules.attesting import Case, evidence, key_of, on, policy, record, signature, to


def fails(case: Case) -> set[str]:
    """Return which checks fail."""
    return {v.check for v in case.judged_by(check_evidence) if v.outcome == "fail"}


def test_cve_2018_6622_a_resume_that_resets_registers() -> None:
    """S3 could let registers be replayed: a resume between creation and quote, or before, fails."""
    for name in ("suspended-before-quote", "suspended-h-alive"):
        assert {"attestation.V26"} == KEPT.expected(name)


def test_cve_2021_3406_three_forms_of_one_ek() -> None:
    """EK, certificate and TPM were three fields: here is one, and the AK signs it."""
    assert {"enrolment.bound"} == KEPT.expected("ek-swapped")
    assert {"attestation.V14"} == fails(evidence(enrolment=on(ek_spki="00" * 32)))
    fields = set(EnrolmentRecord.__struct_fields__)
    assert {"ek_spki", "ek_certificate"} == {name for name in fields if name.startswith("ek_")}


def test_cve_2021_43310_a_share_replayed() -> None:
    """Parts of a key could be replayed to an agent: a quote binds one request, terms and all."""
    for name in ("quote-stale", "creation-stale"):
        assert {"attestation.V24"} == KEPT.expected(name)


def test_cve_2022_0317_a_quote_over_no_registers() -> None:
    """A log was believed on a quote over no register, or others: the signed selection decides."""
    for name in ("selection-none", "selection-empty", "selection-more", "selection-fewer"):
        assert "attestation.V50" in KEPT.expected(name)


def test_cve_2022_1053_one_ak_checked_and_another_used() -> None:
    """Each party looked at its own AK: every check here is of the record's, whole."""
    assert {"attestation.V10"} == KEPT.expected("cuckoo")
    other = evidence(enrolment=on(ak_name="000b" + "00" * 32))
    assert {"attestation.V10"} == fails(other)


@pytest.mark.parametrize("size", [MAX_STRUCTURE_BYTES + 1, 60_000])
def test_cve_2022_23948_to_23952_what_is_large_is_not_read(size: int) -> None:
    """A quote could be a bomb: sizes are capped before parsing, and nothing is ever unpacked."""
    assert {"attestation.V02"} == fails(evidence(request=key_of(public=bytes(size))))
    with pytest.raises(Malformed):
        decode_envelope(b"{" + bytes(MAX_STATEMENT_BYTES))
    with pytest.raises(Malformed):
        decode(Request, b"x" * (MAX_STATEMENT_BYTES + 1))


def test_cve_2022_3500_and_2023_3674_a_fault_is_no_pass() -> None:
    """A bad signature was only logged: a fault is a failed check here, no check a refusal."""
    assert {"attestation.V20"} == fails(evidence(quote_signature=to(_other_signature)))
    with pytest.raises(Refused) as empty:
        require(())
    assert "verdicts.empty" == empty.value.check
    with pytest.raises(AssertionError):
        Ledger().done()
    ledger = Ledger()
    with pytest.raises(ZeroDivisionError), ledger.failing("some.check"):
        raise ZeroDivisionError
    with pytest.raises(AssertionError):
        ledger.done()


def _other_signature(attest: bytes) -> bytes:
    return signature(attest, "another ak")


def test_cve_2023_38201_the_right_answer_is_not_told() -> None:
    """An error held the tag it had expected: no reason here holds a digest that was expected."""
    case = evidence(auth_policy=to(bytes(32)))
    good = evidence()
    secret = good.statement.predicate.key.public.hex()
    for verdict in case.judged_by(check_evidence):
        assert secret[-64:] not in verdict.reason
        assert case.statement.predicate.terms.digest().hex() not in verdict.reason


def test_cve_2023_1017_1018_cve_2025_2884_49133_cve_2026_21444_firmware_of_a_tpm() -> None:
    """Flaws in a TPM's firmware end with an update, and an update, or its undoing, is seen."""
    assert {"attestation.V27"} == KEPT.expected("firmware-changed")


@pytest.mark.parametrize("name", ["magic-quote", "magic-creation"])
def test_cve_2024_29038_and_29040_bytes_no_tpm_made(name: str) -> None:
    """The magic was not looked at: without it an attestation is refused though well signed."""
    assert {"attestation.V21"} == KEPT.expected(name)
    held = KEPT.statement(name)
    quote = held.envelope.signatures[0].sig[2:6]
    creation = held.predicate.key.attest[:4]
    assert {MAGIC} != {int.from_bytes(quote, "big"), int.from_bytes(creation, "big")}


def test_cve_2024_29039_registers_under_other_names() -> None:
    """The selection was taken from the caller: 16 and 23 with golden values are not 0 and 7."""
    assert "attestation.V50" in KEPT.expected("selection-relabelled")
    quote = unpack_quote(KEPT.statement("selection-relabelled").envelope.signatures[0].sig)
    relabelled = parse_attest(quote.attest).body
    good = parse_attest(unpack_quote(KEPT.statement("good").envelope.signatures[0].sig).attest).body
    # The digest is the golden one: nothing but the selection tells.
    assert relabelled.pcr_digest == good.pcr_digest  # type: ignore[union-attr]
    with pytest.raises((Malformed, Refused)):
        decode(HostRequirements, encode(change(policy().host, pcrs=())))


def test_cve_2025_13609_another_tpm_under_a_known_name() -> None:
    """A name could be registered again with another TPM: a record is one TPM's."""
    assert {"attestation.V10"} == KEPT.expected("cuckoo")
    again = record(evidence().statement.predicate.ak_public, host="gpu-1", ek_spki="11" * 32)
    assert {"attestation.V14"} == fails(evidence(enrolment=to(again)))


def test_cve_2026_1709_a_route_without_its_guard(tmp_path: Path) -> None:
    """A route lost its check of who calls: whoever reaches an enroller's desk gets nothing by it.

    Each of its four routes is asked, without a challenge, for a host that is not on the inventory.
    """
    served = Served(Enroller("esme", tmp_path), inventory={}, unattended=True)
    digest = REQUEST.digest()
    forged = Answer(
        kind="custody/enrolment-answer/v1",
        request=digest,
        enroller=served.who.signer.key_id,
        proof="00" * 32,
    )
    routes: tuple[Callable[[], object], ...] = (
        lambda: served.desk.receive(encode(REQUEST)),
        lambda: served.desk.attach(digest, b"{}"),
        lambda: served.desk.answer(digest, encode(forged)),
        lambda: served.desk.fetch(digest),
    )
    for route in routes:
        with pytest.raises(CustodyError):
            route()
    assert [] == list(served.who.home.folder("records").iterdir())


def test_cve_2026_6420_a_constant_nonce() -> None:
    """A nonce was constant: here there is none, and no two bindings are the same."""
    for name in ("quote-constant", "creation-constant"):
        assert {"attestation.V24"} == KEPT.expected(name)
    first, second = KEPT.statement("good"), KEPT.statement("replay-good")
    assert first.digest != second.digest
    assert bind("request", bytes.fromhex(first.digest)) != bind(
        "request", bytes.fromhex(second.digest)
    )


def test_ghsa_gwfg_w3jr_xh66_an_nv_index_for_a_quote() -> None:
    """The type was not looked at: an NV index that its owner wrote is no quote."""
    for name in ("nv-as-quote", "certify-as-quote", "creation-as-quote", "quote-as-creation"):
        assert {"attestation.V22"} == KEPT.expected(name)


def test_ghsa_hcm6_rjfh_f25p_a_log_in_a_log() -> None:
    """A parser went into itself without an end: events' data are not parsed, however deep."""
    assert {"attestation.V53", "attestation.V54"} == KEPT.expected("log-recursive")
    whole = parse_event_log(bootlog.record(bootlog.BootState()))
    first, data = whole.events[0], b""
    while len(data) < MAX_EVENT_BYTES - 400:
        inner = data
        data = replace(whole, events=(first._replace(data=inner), first)).pack()
        (outer, _) = parse_event_log(data).events
        assert inner == outer.data


def test_every_identifier_has_a_test() -> None:
    """What a vector says it would be has a test of that name here."""
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    named = {KEPT.vector(name).get("cve", "") for name in KEPT.names} - {""}
    assert 7 < len(named)
    for identifier in named:
        words = identifier.lower().replace("-", "_")
        number = words.removeprefix("cve_2024_")
        assert words in tests or number in tests, identifier
