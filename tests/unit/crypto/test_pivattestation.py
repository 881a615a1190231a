"""What a YubiKey's attestation says is read by the vendor's document, and by nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.pivattestation import is_piv_attestation, read_piv_attestation
from custody.crypto.signature import public_bytes
from custody.errors import Malformed
from tests.unit.crypto.vectors import VECTORS
from tests.unit.yubikey import FIRMWARE, FORM, POLICY, SERIAL, YubiKey, extensions

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
YUBIKEY = YubiKey()


def test_what_it_says_is_read() -> None:
    """Key, slot, serial number, firmware and policies; f9's certificate and the root are none."""
    said = read_piv_attestation(YUBIKEY.attest(KEY, "9c"))
    assert public_bytes(KEY) == said.spki
    assert ("9c", 13078782, (5, 2, 6)) == (said.slot, said.serial, said.firmware)
    assert ("always", "cached", 3) == (said.pin, said.touch, said.form)
    assert not any(is_piv_attestation(der) for der in (YUBIKEY.f9, YUBIKEY.root))
    with pytest.raises(Malformed, match="not an attestation"):
        read_piv_attestation(YUBIKEY.f9)


def test_the_vectors_are_read() -> None:
    """One attestation, and two certificates that are none, as files for other programs."""
    folder = VECTORS / "pivattestation"
    said = read_piv_attestation((folder / "9c.cer").read_bytes())
    assert ("9c", 13078782, (5, 2, 6)) == (said.slot, said.serial, said.firmware)
    assert not any(is_piv_attestation((folder / f"{n}.cer").read_bytes()) for n in ("f9", "root"))


def test_an_older_one_tells_no_form() -> None:
    """A YubiKey 4 has no form factor to tell."""
    assert read_piv_attestation(YUBIKEY.attest(KEY, "9a", without=FORM)).form is None


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (FIRMWARE, b"\x05\x02"),
        (FIRMWARE, b"\x04\x03\x05\x02\x06"),
        (SERIAL, b"\x04\x04\x00\xc7\x90\xfe"),
        (SERIAL, b"\x02\x04\x00\x00\x90\xfe"),
        (SERIAL, b"\x02\x01\x00"),
        (SERIAL, b"\x02\x01\xff"),
        (SERIAL, b"\x02\x05\x01\x00\x00\x00\x00"),
        (SERIAL, b"\x02\x02\x01\x02\x03"),
        (SERIAL, b"\x02\x81\x01\x05"),
        (SERIAL, b""),
        (POLICY, b"\x03"),
        (POLICY, b"\x03\x02\x00"),
        (POLICY, b"\x00\x01"),
        (POLICY, b"\x06\x01"),
        (POLICY, b"\x03\x04"),
        (POLICY, b"\x04\x02\x03\x01"),
        (FORM, b""),
        (FORM, b"\x03\x03"),
    ],
)
def test_other_bytes_are_malformed(oid: str, value: bytes) -> None:
    """Wrapped, short, long, negative, not the shortest, unknown: none is guessed at."""
    with pytest.raises(Malformed):
        read_piv_attestation(YUBIKEY.attest(KEY, "9c", changed={oid: value}))


@pytest.mark.parametrize("without", [FIRMWARE, SERIAL, POLICY])
def test_what_is_missing_is_malformed(without: str) -> None:
    """Everything that is recorded has to be there."""
    with pytest.raises(Malformed):
        read_piv_attestation(YUBIKEY.attest(KEY, "9c", without=without))


@pytest.mark.parametrize("slot", ["f9", "9b", "81", "96", "9C", "", "9c9c"])
def test_a_slot_that_is_none_is_malformed(slot: str) -> None:
    """Slot f9 attests others; the rest do not exist, or are written otherwise."""
    with pytest.raises(Malformed, match="no slot"):
        read_piv_attestation(YUBIKEY.attest(KEY, slot))


def test_an_authority_attests_nothing() -> None:
    """A certificate that may sign others is not of a key in a slot."""
    with pytest.raises(Malformed, match="authority"):
        read_piv_attestation(YUBIKEY.attest(KEY, "9c", authority=True))


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_bit_is_another_thing_or_none(at: int, bit: int) -> None:
    """A changed certificate is read, or Malformed: nothing else is raised."""
    der = bytearray(YUBIKEY.attest(KEY, "9c"))
    der[at % len(der)] ^= 1 << bit
    with suppress(Malformed):
        assert read_piv_attestation(bytes(der)).slot


@given(data=st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    """Bytes of anybody are no attestation."""
    with pytest.raises(Malformed):
        read_piv_attestation(data)


def test_a_large_one_is_not_parsed() -> None:
    """The size is looked at first."""
    with pytest.raises(Malformed, match="larger"):
        is_piv_attestation(bytes(8193))


def test_the_extensions_are_the_vendors() -> None:
    """The test's YubiKey says what one of firmware 5.2.6 was seen to say, byte for byte."""
    assert {
        FIRMWARE: bytes.fromhex("050206"),
        SERIAL: bytes.fromhex("020400c790fe"),
        POLICY: bytes.fromhex("0303"),
        FORM: bytes.fromhex("03"),
    } == extensions()
