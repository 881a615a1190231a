"""RSA keys that open OAEP slots, in SoftHSM: SHA-1 is all it does."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto import keyslots
from custody.crypto.oaepslots import OaepParameters, OaepSuite, parameters_of
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Malformed, Refused, Unavailable
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.pkcs11_audit import audit_token
from custody.keys.pkcs11_oaep import OaepKey
from custody.keys.uri import Pkcs11Uri
from tests.device.conftest import USER_PIN

SUITE: OaepSuite = "RSA2048_OAEP_SHA1"
INFO = b"i" * 32
SECRET = bytes(range(64))


def parameters(suite: OaepSuite) -> OaepParameters:
    """Return what a suite fixes."""
    found = parameters_of(suite)
    assert found is not None
    return found


def seal_to(key: rsa.RSAPrivateKey, suite: OaepSuite) -> bytes:
    """Seal something to a key."""
    return keyslots.seal(suite, public_bytes(key.public_key()), None, SECRET, info=INFO)


@pytest.fixture
def key(token: Pkcs11Token) -> OaepKey:
    """A share key that decrypts."""
    return token.decrypting().make("alice share", parameters(SUITE))


@pytest.mark.parametrize("suite", ["RSA2048_OAEP_SHA1", "RSA3072_OAEP_SHA1"])
def test_a_slot_opens_in_the_token(token: Pkcs11Token, suite: OaepSuite) -> None:
    """What is sealed to a key in a token opens there, by the key made and by the key found."""
    made = token.decrypting().make("alice share", parameters(suite))
    sealed = seal_to(made, suite)
    found = token.decrypting().find(made.info.key_id)
    for one in (made, found):
        assert SECRET == keyslots.open(suite, one, None, sealed, info=INFO)


def test_a_hash_that_the_token_does_not_do_makes_no_key(token: Pkcs11Token, uri: Pkcs11Uri) -> None:
    """A key is tried before it is given out; one that fails is not left behind."""
    with pytest.raises(Unavailable):
        token.decrypting().make("alice share", parameters("RSA2048_OAEP_SHA256"))
    assert () == audit_token(uri).objects


def test_bad_slots_are_the_slots_fault(key: OaepKey) -> None:
    """A changed slot, one for another key and one by another hash are refused, all alike."""
    sealed = seal_to(key, SUITE)
    other = rsa.generate_private_key(65537, 2048)
    swapped: list[bytes] = []
    for at in (0, 100, 255, 256, 290, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        swapped.append(bytes(changed))
    said = set()
    for bad in (*swapped, seal_to(other, SUITE), seal_to(key, "RSA2048_OAEP_SHA256"), sealed[:99]):
        with pytest.raises(Refused) as caught:
            keyslots.open(SUITE, key, None, bad, info=INFO)
        said.add((caught.value.check, str(caught.value)))
    assert 1 == len(said)
    assert SECRET == keyslots.open(SUITE, key, None, sealed, info=INFO)


def test_bad_padding_and_a_bad_tag_are_the_same_work_and_words(
    key: OaepKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often the token is asked does not tell which it was: twice; for a good one, once."""
    asked: list[int] = []
    ask = OaepKey._try

    def counted(self: OaepKey, session: Any, ciphertext: bytes, scheme: Any) -> Any:
        asked.append(len(ciphertext))
        return ask(self, session, ciphertext, scheme)

    monkeypatch.setattr(OaepKey, "_try", counted)
    sealed = seal_to(key, SUITE)
    padded = b"\0" + os.urandom(255) + sealed[256:]
    tagged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    # What is no key of 32 bytes, in good padding, is no third thing.
    short = key.public_key().encrypt(b"short", parameters(SUITE).padding) + sealed[256:]
    said = []
    for bad in (padded, tagged, short):
        asked.clear()
        with pytest.raises(Refused) as caught:
            keyslots.open(SUITE, key, None, bad, info=INFO)
        assert caught.value.__cause__ is None
        said.append((tuple(asked), caught.value.check, str(caught.value), caught.value.hint))
    assert [
        ((256, 256), "slot.open", "the slot does not open with this key", said[0][3])
    ] * 3 == said
    asked.clear()
    assert SECRET == keyslots.open(SUITE, key, None, sealed, info=INFO)
    assert [256] == asked


def test_the_key_decrypts_and_nothing_else(
    key: OaepKey, token: Pkcs11Token, uri: Pkcs11Uri
) -> None:
    """The token itself refuses to sign, unwrap or decrypt otherwise with it, and to change it."""
    held = {item.kind: item for item in audit_token(uri).objects}
    assert ("oaep", ("RSA_PKCS_OAEP",)) == (held["private"].role, held["private"].mechanisms)
    assert () == audit_token(uri).findings
    with token._connection.login(writing=True) as session:
        (item,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        held_key: Any = item
        with pytest.raises(AttributeError):
            held_key.sign(b"x" * 32, mechanism=Mechanism.RSA_PKCS)
        with pytest.raises(AttributeError):
            held_key.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, bytes(256))
        for mechanism in (Mechanism.RSA_PKCS, Mechanism.RSA_X_509):
            with pytest.raises(pkcs11.PKCS11Error):
                held_key.decrypt(os.urandom(256), mechanism=mechanism)
        for name in (Attribute.SIGN, Attribute.UNWRAP, Attribute.EXTRACTABLE):
            with pytest.raises(pkcs11.PKCS11Error):
                held_key[name] = True


def test_the_key_wants_the_pin_for_each_use(uri: Pkcs11Uri) -> None:
    """To be logged in is not enough to open a slot, and its owner types the PIN once."""
    typed: list[str] = []

    def reader(prompt: str, /) -> bytearray:
        typed.append(prompt)
        return bytearray(USER_PIN)

    with open_token(replace(uri, pin_source=None), pin=reader) as token:
        key = token.decrypting().make("alice share", parameters(SUITE))
        assert () == key.info.quirks == token.decrypting().find(key.info.key_id).info.quirks
        sealed = seal_to(key, SUITE)
        for _ in range(2):
            assert SECRET == keyslots.open(SUITE, key, None, sealed, info=INFO)
        with token._connection.login() as session:
            (item,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
            held: Any = item
            with pytest.raises(pkcs11.UserNotLoggedIn):
                held.decrypt(
                    sealed[:256],
                    mechanism=Mechanism.RSA_PKCS_OAEP,
                    mechanism_param=(Mechanism.SHA_1, pkcs11.MGF.SHA1, None),
                )
    assert 1 == len(typed)


def test_what_would_export_is_refused(key: OaepKey) -> None:
    """Neither numbers nor bytes nor a pickle of the key leave the token, and it does not sign."""
    for act in (
        key.private_numbers,
        key.__reduce__,
        lambda: key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        lambda: key.sign(b"x"),
    ):
        with pytest.raises(Refused) as caught:
            act()
        assert caught.value.check in ("key.export", "key.role")
    assert key is copy.copy(key) is copy.deepcopy(key)


def test_another_scheme_is_a_fault_of_ours(key: OaepKey) -> None:
    """PKCS#1 v1.5, which has an oracle, is not so much as tried."""
    with pytest.raises(TypeError):
        key.decrypt(bytes(256), padding.PKCS1v15())


def test_a_key_that_may_do_more_is_not_found(token: Pkcs11Token) -> None:
    """A key somebody made otherwise, under our prefix and label, is refused by what it may do."""
    with token._connection.login(writing=True) as session:
        public, _ = session.generate_keypair(
            KeyType.RSA,
            2048,
            id=b"oaep-0000000000000000",
            label="alice share",
            store=True,
            capabilities=pkcs11.MechanismFlag.DECRYPT | pkcs11.MechanismFlag.UNWRAP,
        )
        spki = public_bytes(
            rsa.RSAPublicNumbers(
                int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"),
                int.from_bytes(public[Attribute.MODULUS], "big"),
            ).public_key()
        )
    with pytest.raises(Refused) as caught:
        token.decrypting().find(key_id(spki))
    assert "key.template" == caught.value.check
    assert "UNWRAP" in caught.value.reason


def test_an_unknown_key_is_not_there(token: Pkcs11Token) -> None:
    """No key, no answer."""
    with pytest.raises(Unavailable):
        token.decrypting().find("00" * 32)


@pytest.mark.parametrize("label", ["", "a\nb", "x" * 65])
def test_a_bad_label_makes_no_key(token: Pkcs11Token, label: str) -> None:
    """Labels are read by people."""
    with pytest.raises(Malformed):
        token.decrypting().make(label, parameters(SUITE))
