"""What a probe does to a PKCS#11 token: one function per measure, each with throw-away keys.

A function returns what it saw; an error of the token inside it is a "no" with the error's name.
What a token enforces is in `custody.keys.pkcs11_enforced`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11 import MGF, Attribute, KeyType, Mechanism

from custody.keys.api import KeyRole
from custody.keys.pkcs11_bench import LABEL, SESSION, Bench, Unmade, Untested, single_use
from custody.keys.pkcs11_templates import (
    PARAMETERS,
    derived_template,
    kek_template,
    private_template,
    public_key_of,
    public_template,
)

_ED25519 = {
    "oid": bytes.fromhex("06032b6570"),
    "name": b"\x13\x0cedwards25519",
}
_OAEP: Mapping[str, tuple[Mechanism, MGF, hashes.HashAlgorithm]] = {
    "sha1": (Mechanism.SHA_1, MGF.SHA1, hashes.SHA1()),  # noqa: S303  asked about, not relied on
    "sha256": (Mechanism.SHA256, MGF.SHA256, hashes.SHA256()),
    "sha384": (Mechanism.SHA384, MGF.SHA384, hashes.SHA384()),
    "sha512": (Mechanism.SHA512, MGF.SHA512, hashes.SHA512()),
}
#: Names the standard and its readers have had for AES-KWP, the standard's first.
_KWP = (Mechanism.AES_KEY_WRAP_KWP, Mechanism.AES_KEY_WRAP_PAD)


# ── keys and signatures ──────────────────────────────────────────────────────────────────────────


def _makes(curve: str) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        public, _ = bench.ec_pair(curve)
        return public_key_of(public).curve.name == curve

    return measure


def _full_template(bench: Bench) -> bool:
    bench.offers(Mechanism.EC_KEY_PAIR_GEN)
    curve, id_ = ec.SECP256R1(), b"probe"
    private = {**private_template(KeyRole.SIGN, label=LABEL, id=id_), **SESSION}
    public = {**public_template(KeyRole.SIGN, label=LABEL, id=id_, curve=curve), **SESSION}
    parameters = bench.session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS[curve.name]}, local=True
    )
    with bench.making():
        pair = parameters.generate_keypair(
            capabilities=pkcs11.MechanismFlag(0), public_template=public, private_template=private
        )
    bench.made += pair
    return all(
        item[name] == value
        for item, template in zip(pair, (public, private), strict=True)
        for name, value in template.items()
    )


def _signs(mechanism: Mechanism) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        bench.offers(mechanism)
        public, private = bench.ec_pair()
        message = os.urandom(32)
        raw = private.sign(message, mechanism=mechanism)
        signature = encode_dss_signature(
            int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        )
        hashed = Prehashed(hashes.SHA256()) if mechanism is Mechanism.ECDSA else hashes.SHA256()
        try:
            public_key_of(public).verify(signature, message, ec.ECDSA(hashed))
        except InvalidSignature:
            return False
        return len(raw) == 64

    return measure


def _eddsa(form: str) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        bench.offers(Mechanism.EC_EDWARDS_KEY_PAIR_GEN)
        parameters = bench.session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519[form]}, local=True
        )
        with bench.making():
            pair = parameters.generate_keypair(
                label=LABEL,
                capabilities=pkcs11.MechanismFlag(0),
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                public_template=SESSION | {Attribute.VERIFY: True},
                private_template=single_use(Attribute.SIGN),
            )
        bench.made += pair
        signature = pair[1].sign(b"probe", mechanism=Mechanism.EDDSA)
        point = bytes(pair[0][Attribute.EC_POINT])[-32:]
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(point).verify(signature, b"probe")
        except (InvalidSignature, ValueError):
            return False
        return True

    return measure


# ── agreement and decryption ─────────────────────────────────────────────────────────────────────


def _agrees(
    curve: ec.EllipticCurve, *, der: bool = False, kdf: pkcs11.KDF = pkcs11.KDF.NULL
) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        bench.offers(Mechanism.ECDH1_DERIVE)
        public, private = bench.ec_pair(curve.name, use=Attribute.DERIVE)
        ours = ec.generate_private_key(curve)
        shared = derive(private, ours, der=der, kdf=kdf)
        expected = ours.exchange(ec.ECDH(), public_key_of(public))
        if kdf is not pkcs11.KDF.NULL:
            # ANSI X9.63: the hash of the value and a counter of one.
            digest = hashes.Hash(hashes.SHA256())
            digest.update(expected + b"\0\0\0\1")
            expected = digest.finalize()
        return shared == expected

    return measure


def derive(private: Any, ours: ec.EllipticCurvePrivateKey, *, der: bool, kdf: pkcs11.KDF) -> bytes:
    """Agree with ``ours`` in the token; ``der``: its point goes in as an OCTET STRING."""
    point = ours.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    if der:
        point = bytes([4, len(point)]) + point
    size = (ours.key_size + 7) // 8
    derived = private.derive_key(
        KeyType.GENERIC_SECRET,
        8 * size,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(kdf, None, point),
        capabilities=0,
        template=dict(derived_template(size)),
    )
    try:
        return bytes(derived[Attribute.VALUE])
    finally:
        derived.destroy()


def _decrypts(name: str, label: bytes | None = None) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        bench.offers(Mechanism.RSA_PKCS_OAEP)
        public, private = bench.rsa_pair()
        digest, mask, algorithm = _OAEP[name]
        message = os.urandom(32)
        scheme = padding.OAEP(padding.MGF1(algorithm), algorithm, label)
        sealed = rsa_public(public).encrypt(message, scheme)
        opened = private.decrypt(
            sealed, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=(digest, mask, label)
        )
        return bytes(opened) == message

    return measure


def _any_label(bench: Bench) -> bool:
    """Decrypt with a label under the first hash the token does without one."""
    works = None
    for name in _OAEP:
        with suppress(pkcs11.PKCS11Error, Unmade):
            if _decrypts(name)(bench):
                works = name
                break
    if works is None:
        raise Untested("no hash works without a label")
    return _decrypts(works, b"probe")(bench)


def rsa_public(public: Any) -> rsa.RSAPublicKey:
    """Return a token's RSA public key as `cryptography` has it."""
    exponent = int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big")
    return rsa.RSAPublicNumbers(
        exponent, int.from_bytes(public[Attribute.MODULUS], "big")
    ).public_key()


# ── wrapping ─────────────────────────────────────────────────────────────────────────────────────


def _gcm(bench: Bench) -> bool:
    bench.offers(Mechanism.AES_GCM)
    key = bench.aes(Attribute.ENCRYPT, Attribute.DECRYPT)
    parameter = pkcs11.GCMParams(os.urandom(12))
    sealed = key.encrypt(b"probe", mechanism=Mechanism.AES_GCM, mechanism_param=parameter)
    opened = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameter)
    return len(sealed) == 5 + 16 and bytes(opened) == b"probe"


def kwp_of(bench: Bench) -> Mechanism:
    """Return the name the token offers AES-KWP by."""
    for mechanism in _KWP:
        if mechanism in bench.mechanisms:
            return mechanism
    raise pkcs11.MechanismInvalid


def _wraps(choose: Callable[[Bench], Mechanism], size: int) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        mechanism = choose(bench)
        bench.offers(mechanism)
        key = bench.aes(Attribute.WRAP, Attribute.UNWRAP)
        value = os.urandom(size)
        wrapped = key.wrap_key(bench.secret(value), mechanism=mechanism)
        return bytes(bench.unwrap(key, wrapped, mechanism)[Attribute.VALUE]) == value

    return measure


def _kek(bench: Bench) -> bool:
    template = {
        **kek_template(label=LABEL, id=b"probe", mechanism=kwp_of(bench)),
        **SESSION,
        Attribute.DESTROYABLE: True,
    }
    with bench.making():
        key = bench.session.generate_key(
            KeyType.AES, 256, capabilities=pkcs11.MechanismFlag(0), template=template
        )
    bench.made.append(key)
    return all(key[name] == value for name, value in template.items())


_P256, _P384 = ec.SECP256R1(), ec.SECP384R1()
#: How each measure of `custody.keys.probe.MEASURES` of what a token can do is made.
ABLE: Mapping[str, Callable[[Bench], bool]] = {
    "ec.p256": _makes("secp256r1"),
    "ec.p384": _makes("secp384r1"),
    "ec.p521": _makes("secp521r1"),
    "template.full": _full_template,
    "ecdsa.digest": _signs(Mechanism.ECDSA),
    "ecdsa.message": _signs(Mechanism.ECDSA_SHA256),
    "eddsa.oid": _eddsa("oid"),
    "eddsa.name": _eddsa("name"),
    "ecdh.raw": _agrees(_P256),
    "ecdh.der": _agrees(_P256, der=True),
    "ecdh.p384": _agrees(_P384),
    "ecdh.kdf-sha256": _agrees(_P256, kdf=pkcs11.KDF.SHA256),
    **{f"oaep.{name}": _decrypts(name) for name in _OAEP},
    "oaep.label": _any_label,
    "aes.gcm": _gcm,
    "kw": _wraps(lambda _bench: Mechanism.AES_KEY_WRAP, 32),
    "kwp": _wraps(kwp_of, 32),
    "kwp.length": _wraps(kwp_of, 33),
    "template.kek": _kek,
}
