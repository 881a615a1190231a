from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto import signature
from custody.errors import Malformed, Refused
from tests.unit.crypto.vectors import Vector, each

KEYS = {
    curve.name: ec.generate_private_key(curve)
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
}
Answer = Callable[[bytes], bytes]
CURVES = pytest.mark.parametrize("curve", KEYS)


class Token:
    """Has nothing of a key but what signing asks for, and returns what it is told to."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, answer: Answer | None = None) -> None:
        self._key = key
        self._answer = answer

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def sign(self, data: bytes, algorithm: ec.ECDSA) -> bytes:
        made = self._key.sign(data, algorithm)
        return self._answer(made) if self._answer else made


def spki(curve: str) -> bytes:
    """Return the public key of a curve's key."""
    return signature.public_bytes(KEYS[curve].public_key())


def high(made: bytes, curve: str) -> bytes:
    """Return the signature with the larger s of the two."""
    order = KEYS[curve].curve.group_order
    r, s = decode_dss_signature(made)
    return encode_dss_signature(r, max(s, order - s))


@each("signature/ecdsa.txt", "expect", "spki", "message", "signature")
def test_known_signatures(vector: Vector) -> None:
    """Every known signature is taken or refused as its vector says, by both verifiers."""
    fields = [bytes.fromhex(vector[name]) for name in ("spki", "message", "signature")]
    takers = {
        "good": {signature.verify, signature.verify_foreign},
        "foreign": {signature.verify_foreign},
        "bad": set(),
    }[vector["expect"]]
    for verify in (signature.verify, signature.verify_foreign):
        if verify in takers:
            verify(*fields)
        else:
            with pytest.raises(Refused) as caught:
                verify(*fields)
            assert "signature" == caught.value.check


@each("signature/keys.txt", "expect", "spki")
def test_known_keys(vector: Vector) -> None:
    """A public key has one form: named curve, uncompressed point, strict DER."""
    data = bytes.fromhex(vector["spki"])
    if vector["expect"] == "good":
        assert data == signature.public_bytes(signature.load_ec_public(data))
    else:
        assert "bad" == vector["expect"]
        with pytest.raises(Malformed):
            signature.load_ec_public(data)


def test_other_kinds_of_key() -> None:
    """An RSA key is malformed where an EC key is due, to verify as to load."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Malformed):
        signature.load_ec_public(data)
    with pytest.raises(Malformed):
        signature.verify(data, b"message", b"signature")


@CURVES
def test_signing(curve: str) -> None:
    """A signature verifies, with the curve's own hash, and has the low s, every time."""
    half = KEYS[curve].curve.group_order // 2
    for n in range(16):
        made = signature.sign(KEYS[curve], b"message %d" % n)
        signature.verify(spki(curve), b"message %d" % n, made)
        assert decode_dss_signature(made)[1] <= half


@CURVES
def test_a_token_may_return_high_s(curve: str) -> None:
    """Whatever half a token returns, the low one is written."""
    made = signature.sign(Token(KEYS[curve], lambda made: high(made, curve)), b"m")  # type: ignore[arg-type]
    signature.verify(spki(curve), b"m", made)


@CURVES
def test_high_s(curve: str) -> None:
    """The other half of a signature is refused, except from other tools."""
    other = high(signature.sign(KEYS[curve], b"m"), curve)
    with pytest.raises(Refused):
        signature.verify(spki(curve), b"m", other)
    signature.verify_foreign(spki(curve), b"m", other)


@pytest.mark.parametrize(
    "answer",
    [
        lambda made: made[:-1] + bytes([made[-1] ^ 1]),
        lambda _: b"",
        lambda made: made + b"\0",
        lambda _: bytes(64),
    ],
    ids=["fault", "empty", "long", "raw"],
)
def test_a_token_that_signs_wrongly_is_found(answer: Answer) -> None:
    """A faulty signature never leaves the signer: it is verified before it is returned."""
    with pytest.raises(Refused) as caught:
        signature.sign(Token(KEYS["secp256r1"], answer), b"m")  # type: ignore[arg-type]
    assert "signature" == caught.value.check


def test_the_hash_is_the_curves() -> None:
    """A P-384 signature over SHA-256 is refused: the curve alone chooses the hash."""
    key = KEYS["secp384r1"]
    made = key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(made)
    low = encode_dss_signature(r, min(s, key.curve.group_order - s))
    with pytest.raises(Refused):
        signature.verify(spki("secp384r1"), b"m", low)


def test_other_curves_do_not_sign() -> None:
    """A key on another curve is malformed before the token is asked."""
    with pytest.raises(Malformed):
        signature.sign(ec.generate_private_key(ec.SECP256K1()), b"m")


@settings(deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(at: int, bit: int) -> None:
    """Any one bit flipped in signature or message is refused."""
    made = bytearray(signature.sign(KEYS["secp256r1"], b"message"))
    made[at % len(made)] ^= 1 << bit
    with pytest.raises(Refused):
        signature.verify(spki("secp256r1"), b"message", bytes(made))
    message = bytearray(b"message")
    message[at % len(message)] ^= 1 << bit
    good = signature.sign(KEYS["secp256r1"], b"message")
    with pytest.raises(Refused):
        signature.verify(spki("secp256r1"), bytes(message), good)


@given(st.binary(max_size=120))
def test_random_bytes_are_no_key(data: bytes) -> None:
    """Random bytes are malformed as a key, and refused as a signature."""
    with pytest.raises(Malformed):
        signature.load_ec_public(data)
    with pytest.raises(Refused):
        signature.verify(spki("secp256r1"), b"message", data)


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_what_loads_is_written_back(at: int, value: int) -> None:
    """A changed byte in a key is malformed or gives another key with exactly those bytes."""
    data = bytearray(spki("secp256r1"))
    data[at % len(data)] = value
    try:
        key = signature.load_ec_public(bytes(data))
    except Malformed:
        return
    assert data == signature.public_bytes(key)
