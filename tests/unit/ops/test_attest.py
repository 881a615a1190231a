"""A key is called vendor-attested where a vendor's certificates show it, to a pinned root."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.oaepslots import load_rsa_public
from custody.crypto.signature import load_ec_public, public_bytes
from custody.encoding import key_id, sha256
from custody.errors import Malformed, Refused
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement, encode_statement
from custody.ops import admit
from custody.rules.vendor import MAX_BETWEEN, check_attestation
from custody.rules.verdicts import passed
from tests.unit.ops.test_admit import Custodian, Person
from tests.unit.people import NOW
from tests.unit.yubikey import FIRMWARE, POLICY, SERIAL, YubiKey, certificate

YUBIKEY = YubiKey()


@pytest.fixture
def ida(tmp_path: Path) -> Custodian:
    """A custodian."""
    return Custodian(tmp_path)


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    """An officer whose keys are made."""
    return Person(tmp_path)


def keys_of(data: bytes) -> list[ec.EllipticCurvePublicKey]:
    """Return the keys an admission offers, the signing key first."""
    said = decode_statement(Admission, data).predicate
    signing = x509.load_der_x509_csr(said.csr).public_key()
    assert isinstance(signing, ec.EllipticCurvePublicKey)
    return [signing, *(load_ec_public(share.spki) for share in said.shares)]


def offered(ida: Custodian, alice: Person, *slots: str) -> tuple[bytes, list[bytes]]:
    """Have alice make keys, and her YubiKey attest as many of them as slots are named."""
    first = alice.enroll(ida.invitation)
    return first, [
        YUBIKEY.attest(key, slot) for key, slot in zip(keys_of(first), slots, strict=False)
    ]


def enrol(ida: Custodian, alice: Person, attestation: Sequence[bytes]) -> bytes:
    """Enrol again: the same keys, with what attests them."""
    return admit.enroll(
        alice.home,
        alice.token,
        token_uri="pkcs11:token=alice",
        principal="alice",
        display="",
        role="officer",
        invitation=ida.invitation,
        suite="P256",
        attestation=attestation,
    )


def attested(ida: Custodian, data: bytes, *roots: bytes) -> admit.CheckedAdmission:
    """Have the custodian verify it by his roots."""
    return admit.attest(ida.home, ida.check(data), roots=roots or (YUBIKEY.root,), now=NOW)


def test_keys_that_a_vendor_attests_are_listed_as_that(ida: Custodian, alice: Person) -> None:
    """Signing and share key; what was verified is kept, and the same admission is known by it."""
    _, leaves = offered(ida, alice, "9c", "9d")
    data = enrol(ida, alice, [*leaves, YUBIKEY.f9])
    before = ida.check(data)
    assert {"software"} == {key.token_class for key in before.principal.keys}
    found = attested(ida, data)
    assert {"vendor-attested"} == {key.token_class for key in found.principal.keys}
    assert [("9c", 13078782, "5.2.6", "always", "cached")] == [
        (key.slot, key.serial, key.firmware, key.pin, key.touch)
        for key in found.attested
        if key.key == found.offered[0].key_id
    ]
    assert {sha256(YUBIKEY.root).hex()} == {key.root for key in found.attested}
    assert "slot 9c of YubiKey 13078782, firmware 5.2.6" in found.standing(found.offered[0].key_id)
    assert found.principal == ida.check(data).principal


def test_each_key_is_attested_by_itself(ida: Custodian, alice: Person) -> None:
    """A share key that nobody attests stays what its owner says that it is."""
    _, leaves = offered(ida, alice, "9c")
    found = attested(ida, enrol(ida, alice, [*leaves, YUBIKEY.f9]))
    assert ["vendor-attested", "software"] == [key.token_class for key in found.principal.keys]


def test_without_attestation_nothing_is_said(ida: Custodian, alice: Person) -> None:
    """Who brings none is admitted as before, whatever roots there are."""
    found = attested(ida, alice.enroll(ida.invitation))
    assert () == found.attested
    assert "" == found.standing(found.offered[0].key_id)
    said = found.statement.predicate
    keys, (verdict,) = check_attestation(said, roots=[YUBIKEY.root], now=NOW)
    assert ((), "not-applicable") == (keys, verdict.outcome)


def test_certificates_alone_are_not_believed(ida: Custodian, alice: Person) -> None:
    """Without roots nothing is verified, and the key is called nothing more."""
    _, leaves = offered(ida, alice, "9c", "9d")
    checked = ida.check(enrol(ida, alice, [*leaves, YUBIKEY.f9]))
    assert {"software"} == {key.token_class for key in checked.principal.keys}
    assert "not verified" in checked.standing(checked.offered[0].key_id)


def refused(ida: Custodian, data: bytes, words: str, *roots: bytes) -> None:
    """Expect a refusal, and that nothing is kept of it."""
    with pytest.raises(Refused, match=words) as caught:
        attested(ida, data, *roots)
    assert "admission.attestation" == caught.value.check
    assert () == ida.check(data).attested


def test_a_software_key_with_a_vendors_name_is_no_attestation(
    ida: Custodian, alice: Person
) -> None:
    """All the names and extensions, by a root of Mallory's own."""
    first, _ = offered(ida, alice)
    mallory = YubiKey()
    leaves = [mallory.attest(key, "9c") for key in keys_of(first)]
    data = enrol(ida, alice, [*leaves, mallory.f9, mallory.root])
    refused(ida, data, "no path leads to a root")
    # The vendor's own f9 beside it has the right name, and signed nothing.
    refused(ida, enrol(ida, alice, [*leaves, YUBIKEY.f9]), "no path leads to a root")
    attested(ida, data, mallory.root)


def test_somebody_elses_attestation_is_refused(ida: Custodian, alice: Person) -> None:
    """A good attestation of another key: the sender is told, and so is the custodian."""
    offered(ida, alice)
    other = YUBIKEY.attest(ec.generate_private_key(ec.SECP256R1()).public_key(), "9c")
    with pytest.raises(Refused, match="a key that is not offered"):
        enrol(ida, alice, [other, YUBIKEY.f9])
    said = decode_statement(Admission, alice.enroll(ida.invitation)).predicate
    both = tuple(sorted([other, YUBIKEY.f9]))
    keys, verdicts = check_attestation(
        replace(said, attestation=both), roots=[YUBIKEY.root], now=NOW
    )
    assert () == keys
    assert not passed(verdicts)


def test_the_chain_has_to_be_whole(ida: Custodian, alice: Person) -> None:
    """Without f9's certificate there is no path; f9's alone attests nothing."""
    _, leaves = offered(ida, alice, "9c")
    refused(ida, enrol(ida, alice, leaves), "no path leads to a root")
    with pytest.raises(Refused, match="no attestation of a key"):
        enrol(ida, alice, [YUBIKEY.f9])


def test_an_attestation_signs_no_other(ida: Custodian, alice: Person) -> None:
    """A key in a slot is no authority: what it signs is on no path."""
    first, _ = offered(ida, alice)
    vendor = YubiKey()
    signer = vendor._f9
    slot = certificate(
        "Yubico PIV Attestation", signer.public_key(), "Yubico PIV Root CA Serial 263751",
        vendor._root, said={FIRMWARE: b"\x05\x02\x06"},
    )  # fmt: skip
    leaf = vendor.attest(keys_of(first)[0], "9c")
    data = enrol(ida, alice, [leaf, slot])
    refused(ida, data, "CA", vendor.root)


def test_an_f9_that_ended_attests_nothing(ida: Custodian, alice: Person) -> None:
    """The dates of the path are judged at the custodian's time."""
    _, leaves = offered(ida, alice, "9c")
    ended = YUBIKEY.certified(
        "Yubico PIV Attestation", YUBIKEY._f9.public_key(), until=NOW - timedelta(days=1)
    )
    refused(ida, enrol(ida, alice, [*leaves, ended]), "expired|valid")


def test_a_key_that_asks_for_no_pin_is_refused(ida: Custodian, alice: Person) -> None:
    """Whoever has such a token has the key."""
    first, _ = offered(ida, alice)
    leaf = YUBIKEY.attest(keys_of(first)[0], "9c", changed={POLICY: b"\x01\x01"})
    refused(ida, enrol(ida, alice, [leaf, YUBIKEY.f9]), "asks for no PIN")


def test_keys_of_two_tokens_are_refused(ida: Custodian, alice: Person) -> None:
    """One admission is of one token."""
    first, _ = offered(ida, alice)
    signing, share = keys_of(first)
    leaves = [
        YUBIKEY.attest(signing, "9c"),
        YUBIKEY.attest(share, "9d", changed={SERIAL: b"\x02\x01\x05"}),
    ]
    refused(ida, enrol(ida, alice, [*leaves, YUBIKEY.f9]), "several tokens")


@pytest.mark.parametrize(
    ("firmware", "attested"), [("040205", 1), ("040206", 0), ("040304", 0), ("040305", 1)]
)
def test_an_rsa_key_by_firmware_that_makes_weak_ones_is_refused(
    tmp_path: Path, ida: Custodian, firmware: str, attested: int
) -> None:
    """YubiKeys of 4.2.6 to 4.3.4 make RSA keys that their public half gives away."""
    rsa = Person(tmp_path, "rita")
    said = decode_statement(
        Admission, rsa.enroll(ida.invitation, suite="RSA2048_OAEP_SHA256")
    ).predicate
    (share,) = said.shares
    leaf = YUBIKEY.attest(
        load_rsa_public(share.spki), "9d", changed={FIRMWARE: bytes.fromhex(firmware)}
    )
    brought = replace(said, attestation=tuple(sorted([leaf, YUBIKEY.f9])))
    keys, verdicts = check_attestation(brought, roots=[YUBIKEY.root], now=NOW)
    assert (attested, bool(attested)) == (len(keys), passed(verdicts))


def test_a_longer_path_is_found_and_a_longest_is_not(ida: Custodian, alice: Person) -> None:
    """Newer YubiKeys have two more authorities above f9; beyond four nobody looks."""
    first, _ = offered(ida, alice)
    key, made = keys_of(first)[0], YubiKey()
    above, signer, issuer = [], made._root, "Yubico PIV Root CA Serial 263751"
    said = decode_statement(Admission, first).predicate
    root = certificate(issuer, signer.public_key(), issuer, signer, above=9)
    for depth in range(1, MAX_BETWEEN + 2):
        last = YubiKey()._f9
        above.append(
            certificate(f"Authority {depth}", last.public_key(), issuer, signer, above=9 - depth)
        )
        signer, issuer = last, f"Authority {depth}"
        leaf = certificate(
            "YubiKey PIV Attestation 9c", key, issuer, signer, said=_said(made.attest(key, "9c"))
        )
        brought = replace(said, attestation=tuple(sorted([leaf, *above])))
        keys, _ = check_attestation(brought, roots=[root], now=NOW)
        assert (depth <= MAX_BETWEEN) == bool(keys), depth


def _said(der: bytes) -> dict[str, bytes]:
    found = x509.load_der_x509_certificate(der).extensions
    return {
        e.oid.dotted_string: e.value.value
        for e in found
        if isinstance(e.value, x509.UnrecognizedExtension)
    }


def test_what_attests_is_signed_with_the_admission(ida: Custodian, alice: Person) -> None:
    """Nobody takes certificates away or adds some, and they stand in one order, once."""
    _, leaves = offered(ida, alice, "9c")
    statement = decode_statement(Admission, enrol(ida, alice, [*leaves, YUBIKEY.f9, YUBIKEY.f9]))
    assert tuple(sorted([*leaves, YUBIKEY.f9])) == statement.predicate.attestation
    bare = replace(statement.predicate, attestation=())
    with pytest.raises(Refused) as caught:
        ida.check(encode_statement(bare, statement.envelope.signatures))
    assert "admission.signature" == caught.value.check
    for wrong in (statement.predicate.attestation[::-1], (YUBIKEY.f9, YUBIKEY.f9)):
        with pytest.raises((Malformed, ValueError)):
            encode_statement(
                replace(statement.predicate, attestation=wrong), statement.envelope.signatures
            )


def test_keys_and_names_are_as_they_were(ida: Custodian, alice: Person) -> None:
    """Enrolling again offers the very keys: what a vendor attests is public, and changes none."""
    first, leaves = offered(ida, alice, "9c")
    again = enrol(ida, alice, [*leaves, YUBIKEY.f9])
    assert [key_id(public_bytes(key)) for key in keys_of(first)] == [
        key_id(public_bytes(key)) for key in keys_of(again)
    ]
