from __future__ import annotations

from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto import keyslots, oaepslots
from custody.crypto.keyslots import SuiteName
from custody.crypto.oaepslots import OaepSuite
from custody.crypto.signature import public_bytes
from custody.errors import Malformed, Refused, Unavailable
from tests.unit.crypto.vectors import Vector, each

INFO = b"i" * 32
PLAINTEXT = bytes(range(64))
OAEP: tuple[OaepSuite, ...] = get_args(OaepSuite)
SUITES = pytest.mark.parametrize("suite", OAEP)
KEYS = {bits: rsa.generate_private_key(65537, bits) for bits in (2048, 3072)}
OTHER = rsa.generate_private_key(65537, 2048)


class Token(rsa.RSAPrivateKey):
    """A token key: it decrypts, counts how often it was asked, and gives nothing away."""

    def __init__(self, key: rsa.RSAPrivateKey, fault: BaseException | None = None) -> None:
        self._key, self._fault, self.asked = key, fault, 0

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        self.asked += 1
        if self._fault is not None:
            raise self._fault
        return self._key.decrypt(ciphertext, padding)

    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()

    def sign(self, *_: object) -> bytes:
        raise AssertionError("nothing signs with it")

    key_size = property(lambda self: self._key.key_size)
    private_numbers = private_bytes = __copy__ = __deepcopy__ = sign  # type: ignore[assignment]


def key_of(suite: OaepSuite) -> rsa.RSAPrivateKey:
    """Return a key that a suite takes."""
    return KEYS[2048 if "2048" in suite else 3072]


def seal(suite: OaepSuite) -> bytes:
    """Seal something to that key."""
    spki = public_bytes(key_of(suite).public_key())
    return keyslots.seal(suite, spki, None, PLAINTEXT, info=INFO)


def refused(check: str) -> pytest.RaisesExc[Refused]:
    """Expect a refusal by ``check``."""
    return pytest.RaisesExc(Refused, check=lambda error: error.check == check)


SLOT = ("expect", "suite", "private", "info", "sealed", "plaintext")


@each("keyslots/oaep.txt", *SLOT)
def test_known_oaep_slots(vector: Vector) -> None:
    """A slot made once opens for ever, and a bad one is refused."""
    key = load_der_private_key(bytes.fromhex(vector["private"]), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    suite: SuiteName = vector["suite"]  # type: ignore[assignment]
    sealed, info = bytes.fromhex(vector["sealed"]), bytes.fromhex(vector["info"])
    if vector["expect"] == "good":
        opened = keyslots.open(suite, key, None, sealed, info=info)
        assert bytes.fromhex(vector["plaintext"]) == opened
    else:
        with refused(vector["expect"]):
            keyslots.open(suite, key, None, sealed, info=info)


@SUITES
def test_round_trip(suite: OaepSuite) -> None:
    """What is sealed opens, with the key in software and in a token, which is asked once."""
    token = Token(key_of(suite))
    sealed = seal(suite)
    assert PLAINTEXT == keyslots.open(suite, key_of(suite), None, sealed, info=INFO)
    assert PLAINTEXT == keyslots.open(suite, token, None, sealed, info=INFO)
    assert 1 == token.asked
    assert key_of(suite).key_size // 8 + 32 + len(PLAINTEXT) + 16 == len(sealed)


def test_no_slot_of_one_suite_opens_by_another() -> None:
    """The hash and the key's size are the slot's own: no other suite opens it."""
    for suite in OAEP:
        sealed = seal(suite)
        for wrong in keyslots.STRENGTH:
            if wrong != suite:
                with refused("slot.open"):
                    keyslots.open(wrong, key_of(suite), None, sealed, info=INFO)


def test_any_flipped_bit_is_refused_in_the_same_words() -> None:
    """One bit flipped anywhere opens nothing, and the refusal does not say where it was."""
    suite: OaepSuite = "RSA2048_OAEP_SHA256"
    sealed = seal(suite)
    said = set()
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        with refused("slot.open") as caught:
            keyslots.open(suite, KEYS[2048], None, bytes(changed), info=INFO)
        said.add((str(caught.value), caught.value.__cause__, caught.value.__context__))
    assert 1 == len(said)


def test_a_cut_slot_never_reaches_the_token() -> None:
    """A slot that is not whole, or whose number is no residue, is told without the token."""
    suite: OaepSuite = "RSA2048_OAEP_SHA256"
    sealed, token = seal(suite), Token(KEYS[2048])
    for bad in (b"", sealed[:255], sealed[:256], sealed[:303], b"\xff" * 256 + sealed[256:]):
        with refused("slot.open"):
            keyslots.open(suite, token, None, bad, info=INFO)
    assert 0 == token.asked


def test_another_recipient_opens_nothing() -> None:
    """A slot opens for no other key, and under no other info."""
    sealed = seal("RSA2048_OAEP_SHA1")
    for key, info in ((OTHER, INFO), (KEYS[2048], INFO[:-1] + b"j")):
        with refused("slot.open"):
            keyslots.open("RSA2048_OAEP_SHA1", key, None, sealed, info=info)


@pytest.mark.parametrize(
    "fault", [Unavailable("the token is gone"), Refused("no", check="token.pin")]
)
def test_a_tokens_fault_is_its_own(fault: Exception) -> None:
    """What a token raises comes through as it is: a pulled token is no corrupted share."""
    token = Token(KEYS[2048], fault)
    with pytest.raises(type(fault)) as caught:
        keyslots.open("RSA2048_OAEP_SHA1", token, None, seal("RSA2048_OAEP_SHA1"), info=INFO)
    assert caught.value is fault


def strange_key(exponent: int, modulus: int) -> bytes:
    """Write an RSA public key that nobody should seal to."""
    return public_bytes(rsa.RSAPublicNumbers(exponent, modulus).public_key())


def test_keys_that_are_not_the_suites() -> None:
    """Another size, exponent or kind of key, and any other form of the same key, is malformed."""
    small, large = (public_bytes(KEYS[bits].public_key()) for bits in (2048, 3072))
    modulus = KEYS[2048].public_key().public_numbers().n
    for suite, spki, mlkem in (
        ("RSA2048_OAEP_SHA256", large, None),
        ("RSA3072_OAEP_SHA256", small, None),
        ("RSA2048_OAEP_SHA256", small, bytes(1568)),
        ("RSA2048_OAEP_SHA256", strange_key(3, modulus), None),
        ("RSA2048_OAEP_SHA256", strange_key(65539, modulus), None),
        ("RSA2048_OAEP_SHA256", strange_key(65537, modulus >> 1 | 1), None),
        ("RSA2048_OAEP_SHA256", small + b"\0", None),
        ("RSA2048_OAEP_SHA256", small[:-1], None),
        # An exponent that is even has no inverse: nobody can decrypt.
        ("RSA2048_OAEP_SHA256", small.replace(b"\2\3\1\0\1", b"\2\3\1\0\2"), None),
        ("RSA2048_OAEP_SHA256", small.replace(b"\2\3\1\0\1", b"\2\3\0\0\3"), None),
        (
            "RSA2048_OAEP_SHA256",
            public_bytes(ec.generate_private_key(ec.SECP256R1()).public_key()),
            None,
        ),
        ("P256", small, None),
        ("MLKEM1024_P384", large, bytes(1568)),
    ):
        with pytest.raises(Malformed):
            keyslots.check_recipient(suite, spki, mlkem)  # type: ignore[arg-type]
        with pytest.raises(Malformed):
            keyslots.seal(suite, spki, mlkem, PLAINTEXT, info=INFO)  # type: ignore[arg-type]


def test_a_pss_key_is_no_recipient() -> None:
    """A key that says it is for RSASSA-PSS alone is not sealed to."""
    plain = public_bytes(KEYS[2048].public_key())
    pss = plain.replace(
        bytes.fromhex("06092a864886f70d0101010500"), bytes.fromhex("06092a864886f70d01010a0500")
    )
    assert plain != pss
    with pytest.raises(Malformed):
        keyslots.check_recipient("RSA2048_OAEP_SHA256", pss, None)


def test_a_key_that_agrees_opens_no_oaep_slot() -> None:
    """An EC key is no opener of an OAEP slot, nor an RSA key one with an ML-KEM seed."""
    sealed = seal("RSA2048_OAEP_SHA256")
    with refused("slot.open"):
        keyslots.open(
            "RSA2048_OAEP_SHA256", ec.generate_private_key(ec.SECP256R1()), None, sealed, info=INFO
        )
    with refused("slot.open"):
        keyslots.open("RSA2048_OAEP_SHA256", KEYS[2048], bytes(64), sealed, info=INFO)


def test_sha1_comes_before_every_other_suite() -> None:
    """A policy that names any suite with SHA-256, or a curve, takes no SHA-1."""
    with_sha1 = [suite for suite in keyslots.STRENGTH if suite.endswith("SHA1")]
    assert with_sha1 == list(keyslots.STRENGTH[:2])
    assert "P256" == keyslots.STRENGTH[len(OAEP)]


@given(st.binary(max_size=400))
def test_random_bytes_are_no_slot(sealed: bytes) -> None:
    """Random bytes are refused, and the only error is the refusal."""
    with refused("slot.open"):
        keyslots.open("RSA2048_OAEP_SHA256", KEYS[2048], None, sealed, info=INFO)


@given(st.binary(max_size=600))
def test_random_bytes_are_no_key(spki: bytes) -> None:
    """Random bytes are malformed, and so is a key in any form but its one."""
    with pytest.raises(Malformed):
        oaepslots.load_rsa_public(spki)


@given(st.data())
def test_a_changed_byte_of_a_key_is_another_key_or_none(data: st.DataObject) -> None:
    """What is read is written back to the same bytes."""
    good = public_bytes(KEYS[2048].public_key())
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        key = oaepslots.load_rsa_public(bytes(changed))
    except Malformed:
        return
    written = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert bytes(changed) == written
