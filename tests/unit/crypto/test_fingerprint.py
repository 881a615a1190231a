"""Fingerprints, by which parts are found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.fingerprint import FINGERPRINT_BYTES, fingerprint

KEY = bytes(range(32))


def test_it_is_gmac() -> None:
    """Of nothing, under zeros, it is the tag that others have for it."""
    # McGrew and Viega, The Galois/Counter Mode of Operation, test case 13.
    assert bytes.fromhex("530f8afbc74536b9a963b4f1c4cb738b") == fingerprint(bytes(32), b"")


@given(st.binary(max_size=100), st.data())
def test_one_bit_makes_another(plaintext: bytes, data: st.DataObject) -> None:
    """Equal plaintexts have one fingerprint; any bit, and any key, makes another."""
    found = fingerprint(KEY, plaintext)
    assert FINGERPRINT_BYTES == len(found)
    assert found == fingerprint(KEY, memoryview(bytearray(plaintext)))
    assert found != fingerprint(bytes(32), plaintext)
    if plaintext:
        changed = bytearray(plaintext)
        changed[data.draw(st.integers(0, len(plaintext) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        assert found != fingerprint(KEY, changed)


def test_a_short_key_is_an_error() -> None:
    """A key has 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        fingerprint(bytes(16), b"")
