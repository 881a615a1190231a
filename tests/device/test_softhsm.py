"""Token keys on SoftHSM: made, found, used, and kept in."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import NameOID
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto import signature
from custody.crypto.signature import public_bytes
from custody.errors import Refused, Unavailable
from custody.keys.api import KeyRole, find_key, parse_key_uri
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.pkcs11_key import TokenKey
from custody.keys.pkcs11_templates import (
    PARAMETERS,
    derived_template,
    mapper,
    private_template,
    public_template,
)
from custody.keys.profiles import profile_named
from custody.keys.uri import Pkcs11Uri
from tests.device.conftest import SO_PIN, USER_PIN, Bench

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])


def made(token: Pkcs11Token, role: KeyRole, curve: ec.EllipticCurve = CURVES[0]) -> TokenKey:
    """Make a key labelled for its role."""
    key = token.make(role, f"alice {role.value}", curve)
    assert isinstance(key, TokenKey)
    return key


def refused(check: str, action: object, *arguments: object, **named: object) -> Refused:
    """Call ``action``, which must be refused by ``check``."""
    assert callable(action)
    with pytest.raises(Refused) as caught:
        action(*arguments, **named)
    assert check == caught.value.check
    return caught.value


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("role", KeyRole)
def test_make_find_use(token: Pkcs11Token, role: KeyRole, curve: ec.EllipticCurve) -> None:
    """A key of every role and curve is made, found again by its digest, and does its one thing."""
    key = made(token, role, curve)
    assert () == key.info.quirks
    found = find_key(token, key.info.uri, role, key_id=key.info.key_id)
    assert public_bytes(key.public_key()) == public_bytes(found.public_key()) == key.info.spki
    assert (curve.name, curve.key_size) == (found.curve.name, found.key_size)
    if role.derives:
        peer = ec.generate_private_key(curve)
        ours = found.exchange(ec.ECDH(), peer.public_key())
        assert peer.exchange(ec.ECDH(), found.public_key()) == ours
        refused("key.role", found.sign, b"x", ec.ECDSA(hashes.SHA256()))
    else:
        signature.verify(key.info.spki, b"statement", signature.sign(found, b"statement"))
        refused("key.role", found.exchange, ec.ECDH(), key.public_key())


def test_it_calls_itself_software(token: Pkcs11Token) -> None:
    """Nobody takes a key in files for one in a device."""
    assert "software" == token.info.token_class


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_digest_longer_than_the_order(token: Pkcs11Token, algorithm: hashes.HashAlgorithm) -> None:
    """A digest longer than the curve's order is cut as FIPS 186-5 says; prehashed data too."""
    key = made(token, KeyRole.SIGN)
    state = hashes.Hash(algorithm)
    state.update(b"message")
    prehashed = ec.ECDSA(Prehashed(algorithm))
    for produced in (
        key.sign(b"message", ec.ECDSA(algorithm)),
        key.sign(state.finalize(), prehashed),
    ):
        key.public_key().verify(produced, b"message", ec.ECDSA(algorithm))
    with pytest.raises(ValueError, match="length"):
        key.sign(b"short", prehashed)


def test_certificate_request_and_certificate(token: Pkcs11Token) -> None:
    """Token keys sign requests, certificates and CRLs through cryptography's builders."""
    ca, key = made(token, KeyRole.CA, ec.SECP384R1()), made(token, KeyRole.SIGN)
    request = x509.CertificateSigningRequestBuilder(NAME).sign(key, hashes.SHA256())
    assert request.is_signature_valid
    now = datetime(2027, 1, 5, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(NAME, NAME, request.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(ca, hashes.SHA384())
    )
    ca.public_key().verify(
        certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384())
    )
    crl = x509.CertificateRevocationListBuilder(NAME, now, now + timedelta(days=1)).sign(
        ca, hashes.SHA384()
    )
    assert crl.is_signature_valid(ca.public_key())


@pytest.mark.parametrize(
    ("curve", "kem", "kdf"),
    [
        (ec.SECP256R1(), hpke.KEM.P256, hpke.KDF.HKDF_SHA256),
        (ec.SECP384R1(), hpke.KEM.P384, hpke.KDF.HKDF_SHA384),
    ],
    ids=["P256", "P384"],
)
def test_hpke(token: Pkcs11Token, curve: ec.EllipticCurve, kem: hpke.KEM, kdf: hpke.KDF) -> None:
    """HPKE opens with the private half in the token."""
    key = made(token, KeyRole.SHARE, curve)
    suite = hpke.Suite(kem, kdf, hpke.AEAD.AES_256_GCM)
    sealed = suite.encrypt(b"share", key.public_key(), b"info")
    assert b"share" == suite.decrypt(sealed, key, b"info")


def test_hybrid_hpke(token: Pkcs11Token) -> None:
    """The post-quantum hybrid opens with its classical half in the token."""
    key = made(token, KeyRole.SHARE, ec.SECP384R1())
    seed = mlkem.MLKEM1024PrivateKey.generate()
    suite = hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM)
    public = hpke.MLKEM1024P384PublicKey(seed.public_key(), key.public_key())
    sealed = suite.encrypt(b"share", public, b"info")
    assert b"share" == suite.decrypt(sealed, hpke.MLKEM1024P384PrivateKey(seed, key), b"info")


def test_nothing_leaves_the_token(token: Pkcs11Token) -> None:
    """Every way cryptography or Python has of copying a key out is refused."""
    for key in (made(token, KeyRole.SIGN), made(token, KeyRole.SHARE)):
        refused("key.export", key.private_numbers)
        refused(
            "key.export",
            key.private_bytes,
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        refused("key.export", pickle.dumps, key)
        assert key is copy.copy(key) is copy.deepcopy(key)
        assert "271828" not in f"{key!r} {token!r} {vars(key)}"


@pytest.mark.parametrize("role", KeyRole)
def test_token_holds_what_the_template_says(token: Pkcs11Token, role: KeyRole) -> None:
    """Read straight from the token, every attribute of both objects is as the template has it."""
    key = made(token, role)
    wanted = [
        private_template(
            role,
            label=key.info.label,
            id=key.info.id,
            always_authenticate=role is KeyRole.SIGN,
        ),
        public_template(role, label=key.info.label, id=key.info.id, curve=key.curve),
    ]
    with token._connection.login() as session:
        for template in wanted:
            held = _object(session, template[Attribute.CLASS], key.info.id)
            assert dict(template) == {name: held[name] for name in template}
        private = _object(session, ObjectClass.PRIVATE_KEY, key.info.id)
        for name in (Attribute.LOCAL, Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE):
            assert private[name]
        with pytest.raises(pkcs11.AttributeSensitive):
            private[Attribute.VALUE]


def test_a_signing_key_wants_the_pin_for_each_use(uri: Pkcs11Uri) -> None:
    """To be logged in is not enough for a signature, and its owner types the PIN once."""
    typed: list[str] = []

    def reader(prompt: str, /) -> bytearray:
        typed.append(prompt)
        return bytearray(USER_PIN)

    with open_token(replace(uri, pin_source=None), pin=reader) as token:
        key = made(token, KeyRole.SIGN)
        with token.session():
            for message in (b"one", b"two"):
                signature.verify(key.info.spki, message, signature.sign(key, message))
        with token._connection.login() as session:
            private: Any = _object(session, ObjectClass.PRIVATE_KEY, key.info.id)
            with pytest.raises(pkcs11.UserNotLoggedIn):
                private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    assert 1 == len(typed)


def test_a_key_that_does_not_ask_is_found(token: Pkcs11Token) -> None:
    """One made before keys asked for the PIN at each use serves as it did."""
    with token._connection.login(writing=True) as session:
        template = dict(private_template(KeyRole.SIGN, label="older", id=b"sign-01"))
        assert not template[Attribute.ALWAYS_AUTHENTICATE]
        parameters = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS[CURVES[0].name]}, local=True
        )
        parameters.generate_keypair(
            store=True,
            public_template=dict(
                public_template(KeyRole.SIGN, label="older", id=b"sign-01", curve=CURVES[0])
            ),
            private_template=template,
        )
    key = token.find(KeyRole.SIGN, id=b"sign-01")
    signature.verify(public_bytes(key.public_key()), b"x", signature.sign(key, b"x"))


def test_token_enforces_the_template(token: Pkcs11Token) -> None:
    """The token itself refuses other mechanisms and uses, changes, and copies of our keys."""
    key, ca = made(token, KeyRole.SIGN), made(token, KeyRole.CA)
    with token._connection.login(writing=True) as session:
        private = _object(session, ObjectClass.PRIVATE_KEY, key.info.id)
        for name in (Attribute.DERIVE, Attribute.EXTRACTABLE, Attribute.DECRYPT):
            with pytest.raises(pkcs11.PKCS11Error):
                private[name] = True
        # With another attribute it would be refused of any key that is not MODIFIABLE.
        with pytest.raises(pkcs11.PKCS11Error):
            private.copy({})
        with pytest.raises(pkcs11.PKCS11Error):
            _object(session, ObjectClass.PRIVATE_KEY, ca.info.id).destroy()
        private.destroy()


def test_allowed_mechanisms_are_enforced(token: Pkcs11Token) -> None:
    """A key whose CKA_ALLOWED_MECHANISMS leaves ECDH1 out does not derive, DERIVE or not."""
    template = dict(private_template(KeyRole.SHARE, label="x", id=b"x"))
    template[Attribute.ALLOWED_MECHANISMS] = (Mechanism.ECDSA,)
    peer = ec.generate_private_key(CURVES[0]).public_key()
    point = peer.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    with token._connection.login(writing=True) as session:
        private = _foreign_pair(session, template)
        with pytest.raises(pkcs11.MechanismInvalid):
            private.derive_key(
                KeyType.GENERIC_SECRET,
                256,
                mechanism_param=(pkcs11.KDF.NULL, None, point),
                capabilities=0,
                template=dict(derived_template(32)),
            )


def test_key_made_with_defaults_is_refused(token: Pkcs11Token) -> None:
    """A key made with the binding's defaults may sign and derive, and serves no role."""
    with token._connection.login(writing=True) as session:
        parameters = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS["secp256r1"]}, local=True
        )
        parameters.generate_keypair(id=b"\x01", label="alice", store=True)
    (listed,) = token.keys()
    assert listed.role is None
    for role in (KeyRole.SIGN, KeyRole.SHARE):
        error = refused("key.template", token.find, role, id=b"\x01")
        assert "MODIFIABLE" in error.reason


def test_decoy_with_the_same_label(token: Pkcs11Token) -> None:
    """A second key under the label is never taken for the first."""
    real, decoy = made(token, KeyRole.SIGN), made(token, KeyRole.SIGN)
    label = real.info.label
    refused("key.unpinned", token.find, KeyRole.SIGN, label=label)
    found = token.find(KeyRole.SIGN, label=label, key_id=real.info.key_id)
    assert real.info.spki == public_bytes(found.public_key())
    with token._connection.login(writing=True) as session:
        _object(session, ObjectClass.PRIVATE_KEY, real.info.id).destroy()
    error = refused("key.public", token.find, KeyRole.SIGN, label=label, key_id=real.info.key_id)
    assert decoy.info.key_id[:16] in error.reason
    with pytest.raises(Unavailable, match="no longer"):
        signature.sign(real, b"x")


def test_public_decoy_stored_without_a_pin(token: Pkcs11Token) -> None:
    """Anyone can store a public key under our id, without a PIN: the digest still finds ours."""
    real = made(token, KeyRole.SHARE)
    other = ec.generate_private_key(CURVES[0]).public_key().public_numbers()
    with token._connection.locate().open(rw=True, attribute_mapper=mapper()) as session:
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.PUBLIC_KEY,
                Attribute.KEY_TYPE: KeyType.EC,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.ID: real.info.id,
                Attribute.LABEL: real.info.label,
                Attribute.EC_PARAMS: PARAMETERS["secp256r1"],
                Attribute.EC_POINT: b"\x04\x41\x04"
                + other.x.to_bytes(32, "big")
                + other.y.to_bytes(32, "big"),
            }
        )
    refused("key.ambiguous", token.find, KeyRole.SHARE, id=real.info.id)
    found = token.find(KeyRole.SHARE, id=real.info.id, key_id=real.info.key_id)
    assert real.info.spki == public_bytes(found.public_key())


def test_two_tokens_with_one_label(bench: Bench) -> None:
    """A label two tokens bear opens neither; the serial number decides."""
    one, two = bench.token("alice"), bench.token("alice")
    refused("token.ambiguous", open_token, replace(one, serial=None))
    for uri in (one, two):
        with open_token(uri) as token:
            assert uri.serial == token.info.serial
            made(token, KeyRole.SIGN)
            assert 1 == len(token.keys())


@pytest.mark.parametrize(
    "change",
    ["manufacturer=x", "model=x", "slot-id=99", "library-description=x", "library-version=9"],
)
def test_every_attribute_must_match(uri: Pkcs11Uri, change: str) -> None:
    """An attribute of the URI that the token does not bear makes it another token."""
    written = str(uri).replace("pkcs11:", f"pkcs11:{change};")
    other = parse_key_uri(written)
    assert isinstance(other, Pkcs11Uri)
    with pytest.raises(Unavailable, match="no token matches"):
        open_token(other)


def test_wrong_pin(uri: Pkcs11Uri) -> None:
    """A wrong PIN is refused, shown as a low count, and the right one works in the next command."""
    wrong = replace(uri, pin_source=None)
    with open_token(wrong, pin=lambda _: bytearray(b"000000")) as token:
        refused("token.pin", token.keys)
        assert token.info.pin_count_low
    with open_token(wrong, pin=lambda _: bytearray(USER_PIN)) as token:
        assert () == token.keys()
        assert not token.info.pin_count_low


def test_the_security_officers_pin_is_not_the_users(uri: Pkcs11Uri) -> None:
    """The security officer's PIN, given for the user's, is tried once and is wrong."""
    with open_token(replace(uri, pin_source=None), pin=lambda _: bytearray(SO_PIN)) as token:
        refused("token.pin", token.keys)
        assert token.info.pin_count_low
    with open_token(uri) as token:
        assert () == token.keys()


def test_a_read_only_session_writes_nothing(token: Pkcs11Token) -> None:
    """Reading logs in to a session in which the token itself makes no key."""
    with (
        pytest.raises(Unavailable, match="cannot be written"),
        token._connection.login() as session,
    ):
        _foreign_pair(session, dict(private_template(KeyRole.SIGN, label="x", id=b"x")))
    assert () == token.keys()


def test_a_label_that_is_not_utf_8(token: Pkcs11Token) -> None:
    """Somebody else's key with bytes for a label is listed, and hides no key of ours."""
    key = made(token, KeyRole.SIGN)
    known = mapper()
    known.register_handler(Attribute.LABEL, bytes, bytes)
    with token._connection.login(writing=True) as session:
        parameters = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS["secp256r1"]}, local=True
        )
        odd = parameters.generate_keypair(id=b"odd", label="odd", store=True)
        with token._connection.locate().open(rw=True, attribute_mapper=known) as raw:
            for item in raw.get_objects({Attribute.ID: b"odd"}):
                item[Attribute.LABEL] = b"\xff\xfealice"
        assert "\N{REPLACEMENT CHARACTER}" in odd[1][Attribute.LABEL]
    listed = token.keys()
    labels = {info.label for info in listed}
    assert {key.info.label, 2 * "\N{REPLACEMENT CHARACTER}" + "alice"} == labels
    found = token.find(KeyRole.SIGN, key_id=key.info.key_id)
    assert key.info.spki == public_bytes(found.public_key())


def test_bad_pin_file_spends_no_try(uri: Pkcs11Uri) -> None:
    """A PIN file others can read is refused before the token is asked."""
    assert uri.pin_source is not None
    Path(uri.pin_source).chmod(0o640)
    with open_token(uri) as token:
        refused("pin.source", token.keys)
        assert not token.info.pin_count_low


def test_pin_from_a_descriptor(uri: Pkcs11Uri) -> None:
    """``pin-source=fd:N`` reads the PIN from an open descriptor."""
    ours, theirs = os.pipe()
    os.write(theirs, USER_PIN + b"\n")
    os.close(theirs)
    with open_token(replace(uri, pin_source=f"fd:{ours}")) as token:
        assert () == token.keys()
        made(token, KeyRole.SIGN)
    os.close(ours)


def test_login_ends_with_the_operation(token: Pkcs11Token) -> None:
    """Between operations nobody in the process is logged in: private keys cannot be seen."""
    key = made(token, KeyRole.SIGN)
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}

    def visible() -> int:
        with token._connection.locate().open() as session:
            return len(list(session.get_objects(wanted)))

    signature.sign(key, b"x")
    assert 0 == visible()
    with token.session():
        assert 1 == visible()
    assert 0 == visible()


def test_session_scope(token: Pkcs11Token) -> None:
    """Making, finding, signing and deriving work under one login, which ends with the block."""
    with token.session():
        key, share = made(token, KeyRole.SIGN), made(token, KeyRole.SHARE)
        signature.sign(token.find(KeyRole.SIGN, id=key.info.id), b"x")
        share.exchange(ec.ECDH(), key.public_key())
        assert 32 == len(token.random(32))
    assert 2 == len(token.keys())


def test_profile_names_what_the_token_offers(token: Pkcs11Token) -> None:
    """The token is known by its profile and offers every mechanism it lists."""
    assert "softhsm2" == token.info.profile
    offered = token._connection.locate().slot.get_mechanisms()
    assert {Mechanism[name] for name in profile_named("softhsm2").mechanisms} <= offered


def test_random(token: Pkcs11Token) -> None:
    """The token's random bytes have the length asked for and differ."""
    first, second = token.random(32), token.random(32)
    assert 32 == len(first) == len(second)
    assert first != second


def test_keys_are_listed_with_their_uris(token: Pkcs11Token) -> None:
    """Every key is listed with its role, and its URI finds it and no other."""
    keys = {key.info.key_id: key.info for key in (made(token, role) for role in KeyRole)}
    listed = token.keys()
    assert keys == {info.key_id: info for info in listed}
    for info in keys.values():
        assert info.role is not None
        found = find_key(token, parse_key_uri(str(info.uri)), info.role)
        assert info.spki == public_bytes(found.public_key())


def test_store_is_private(bench: Bench) -> None:
    """A token store can be entered by its owner only, and making it again changes nothing."""
    directory = bench.store.directory
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
    assert 0o700 == stat.S_IMODE((directory / "tokens").stat().st_mode)
    assert "library.reset_on_fork = true" in bench.store.config.read_text()


def test_forked_child_is_refused(token: Pkcs11Token) -> None:
    """A process forked after the library was loaded is refused before it enters the library."""
    key = made(token, KeyRole.SIGN)
    child = os.fork()
    if child == 0:
        try:
            signature.sign(key, b"x")
        except Unavailable as error:
            os._exit(42 if "forked" in error.reason else 1)
        os._exit(2)
    assert 42 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_pin_stays_out_of_sight(uri: Pkcs11Uri) -> None:
    """While a child works with a token, its command line and environment hold no PIN."""
    script = (
        "import sys, pathlib\n"
        "from custody.keys.api import parse_key_uri\n"
        "from custody.keys.pkcs11 import open_token\n"
        "with open_token(parse_key_uri(sys.argv[1])) as token:\n"
        "    token.keys()\n"
        "    for name in ('cmdline', 'environ'):\n"
        "        print(pathlib.Path('/proc/self', name).read_bytes())\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(uri)], capture_output=True, check=True, timeout=60
    )
    assert b"pin-source" in child.stdout
    assert USER_PIN not in child.stdout + child.stderr


def _object(session: pkcs11.Session, kind: ObjectClass, id_: bytes) -> pkcs11.Object:
    (found,) = session.get_objects({Attribute.CLASS: kind, Attribute.ID: id_})
    return found


def _foreign_pair(session: pkcs11.Session, template: dict[Attribute, object]) -> Any:
    parameters = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS["secp256r1"]}, local=True
    )
    return parameters.generate_keypair(store=True, private_template=template)[1]
