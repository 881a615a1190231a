from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from custody.keys.prehash import digest_to_sign


@pytest.mark.parametrize("chosen", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_plain_and_prehashed_agree(chosen: hashes.HashAlgorithm) -> None:
    """A message and its digest give the device the same digest and hash."""
    expected = hashlib.new(chosen.name, b"message").digest()
    plain = digest_to_sign(b"message", ec.ECDSA(chosen))
    ready = digest_to_sign(memoryview(expected), ec.ECDSA(Prehashed(chosen)))
    assert (expected, chosen.name) == (plain[0], plain[1].name)
    assert (expected, chosen.name) == (ready[0], ready[1].name)


def test_what_a_device_cannot_do_is_unsupported() -> None:
    """Deterministic nonces are not the device's, and a digest has its hash's length."""
    with pytest.raises(UnsupportedAlgorithm):
        digest_to_sign(b"message", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    with pytest.raises(ValueError, match="wrong length"):
        digest_to_sign(b"message", ec.ECDSA(Prehashed(hashes.SHA256())))
