"""One suite over every kind of token that can be an officer's: what ops rely on, and no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto import keyslots
from custody.crypto.signature import public_bytes, sign, verify
from custody.encoding import key_id
from custody.errors import Refused, Unavailable
from custody.keys import pkcs11, tpm
from custody.keys.api import KeyRole, PinReader, Token
from custody.keys.pin import read_pin_source
from custody.keys.uri import TpmUri
from tests.device.conftest import USER_PIN
from tests.device.named import cleared, officers_token

Opener = Callable[[PinReader], Token]
P256 = ec.SECP256R1()


def right(_prompt: str, /) -> bytearray:
    """Type the PIN."""
    return bytearray(USER_PIN)


@pytest.fixture(params=["softhsm", "tpm", "named"])
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """How to open a fresh token of one kind; whoever opens it types the PIN."""
    if request.param == "softhsm":
        uri = replace(request.getfixturevalue("bench").token("alice"), pin_source=None)
        yield lambda pin: pkcs11.open_token(uri, pin=pin)
    elif request.param == "tpm":
        there = TpmUri(tcti=request.getfixturevalue("machine").tcti)
        yield lambda pin: tpm.open_token(there, pin=pin)
    else:
        given = officers_token()
        source = str(given.pin_source)

        def typed(pin: PinReader) -> Token:
            # Its PIN lies in a file; whoever types the tests' own types that.
            def read(prompt: str, /) -> bytearray:
                text = pin(prompt)
                return read_pin_source(source) if text == USER_PIN else text

            return pkcs11.open_token(replace(given, pin_source=None), pin=read)

        with cleared(given):
            yield typed


@pytest.fixture
def token(opener: Opener) -> Iterator[Token]:
    """The token, opened."""
    with opener(right) as opened:
        yield opened


def test_a_statement_is_signed(token: Token) -> None:
    """A P-256 key signs as DSSE and as TPM2_PolicySigned want it, in either curve a CA may have."""
    for role, curve in ((KeyRole.SIGN, P256), (KeyRole.CA, ec.SECP384R1())):
        key = token.make(role, "alice", curve)
        verify(public_bytes(key.public_key()), b"statement", sign(key, b"statement"))


@pytest.mark.parametrize(("suite", "curve"), [("P256", P256), ("P384", ec.SECP384R1())])
def test_a_share_is_opened(
    token: Token, suite: keyslots.SuiteName, curve: ec.EllipticCurve
) -> None:
    """A slot sealed to a share key opens with it, and with no other info."""
    key = token.make(KeyRole.SHARE, "alice", curve)
    spki = public_bytes(key.public_key())
    share = os.urandom(64)
    sealed = keyslots.seal(suite, spki, None, share, info=b"info")
    assert share == keyslots.open(suite, key, None, sealed, info=b"info")
    with pytest.raises(Refused) as caught:
        keyslots.open(suite, key, None, sealed, info=b"other")
    assert "slot.open" == caught.value.check


def test_roles_do_not_cross(token: Token) -> None:
    """A signing key opens nothing, a share key signs nothing, neither is found as the other."""
    signer, share = token.make(KeyRole.SIGN, "a", P256), token.make(KeyRole.SHARE, "a", P256)
    for action in (
        lambda: signer.exchange(ec.ECDH(), share.public_key()),
        lambda: share.sign(b"x", ec.ECDSA(hashes.SHA256())),
        signer.private_numbers,
    ):
        with pytest.raises(Refused):
            action()
    for key, role in ((signer, KeyRole.SHARE), (share, KeyRole.SIGN)):
        digest = key_id(public_bytes(key.public_key()))
        with pytest.raises((Refused, Unavailable)):
            token.find(role, key_id=digest)


def test_keys_are_found_again(opener: Opener) -> None:
    """Another command finds each key by its digest and lists it with its role."""
    with opener(right) as token:
        made = {
            role: public_bytes(token.make(role, "alice", P256).public_key())
            for role in (KeyRole.SIGN, KeyRole.SHARE)
        }
    with opener(right) as token:
        infos = token.keys()
        listed = {info.role: info for info in infos}
        for role, spki in made.items():
            found = token.find(role, key_id=listed[role].key_id)
            assert spki == public_bytes(found.public_key())
        with pytest.raises((Refused, Unavailable)):
            token.find(KeyRole.SIGN, label="alice")


def test_a_wrong_pin_is_offered_once(opener: Opener) -> None:
    """A wrong PIN is refused, asked for once and counted by the token; the right one then works."""
    with opener(right) as token:
        digest = key_id(public_bytes(token.make(KeyRole.SIGN, "a", P256).public_key()))
    asked: list[str] = []

    def wrong(prompt: str, /) -> bytearray:
        asked.append(prompt)
        return bytearray(b"000000")

    with opener(wrong) as token:
        for _ in range(3):
            with pytest.raises(Refused) as caught:
                sign(token.find(KeyRole.SIGN, key_id=digest), b"x")
            assert "token.pin" == caught.value.check
        assert token.info.pin_count_low
    assert 1 == len(asked)
    with opener(right) as token:
        sign(token.find(KeyRole.SIGN, key_id=digest), b"x")


def test_a_closed_token_is_closed(opener: Opener) -> None:
    """A key kept after its command has ended signs nothing."""
    with opener(right) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
    with pytest.raises(Unavailable):
        sign(key, b"x")


def test_its_random_bytes_differ(token: Token) -> None:
    """A token draws as many bytes as are asked for, other ones each time."""
    first, second = token.random(32), token.random(32)
    assert (32, 32, True) == (len(first), len(second), first != second)
