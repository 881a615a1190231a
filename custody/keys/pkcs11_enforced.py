"""What a token enforces of what a key was made for, measured: each is asked to break it.

Each measure first shows that the permitted case works: a token that refuses everything enforces
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass

from custody.keys.pkcs11_bench import SESSION, Bench, refuses
from custody.keys.pkcs11_measures import derive, kwp_of, rsa_public


def _allowed_mechanisms(bench: Bench) -> bool:
    _, allowed = bench.ec_pair(ALLOWED_MECHANISMS=(Mechanism.ECDSA,))
    allowed.sign(bytes(32), mechanism=Mechanism.ECDSA)
    _, other = bench.ec_pair(ALLOWED_MECHANISMS=(Mechanism.ECDH1_DERIVE,))
    return refuses(lambda: other.sign(bytes(32), mechanism=Mechanism.ECDSA))


def _modifiable(bench: Bench) -> bool:
    key = bench.aes(Attribute.WRAP)
    key[Attribute.LABEL] = "changed"
    fixed = bench.aes(Attribute.WRAP, MODIFIABLE=False)
    return refuses(lambda: fixed.__setitem__(Attribute.DECRYPT, True)) and refuses(
        lambda: fixed.__setitem__(Attribute.LABEL, "changed")
    )


def _copyable(bench: Bench) -> bool:
    bench.made.append(bench.aes(Attribute.WRAP).copy({Attribute.LABEL: "copy"}))
    fixed = bench.aes(Attribute.WRAP, COPYABLE=False)
    return refuses(lambda: bench.made.append(fixed.copy({Attribute.LABEL: "copy"})))


def _sticky(attribute: Attribute, *, value: bool) -> Callable[[Bench], bool]:
    def measure(bench: Bench) -> bool:
        key = bench.aes(Attribute.WRAP)
        if not refuses(lambda: key.__setitem__(attribute, value)):
            return False
        # The other way round a copy of the key: PKCS#11 lets a copy differ where the key may not.
        return refuses(lambda: bench.made.append(key.copy({attribute: value}))) and refuses(
            lambda: key[Attribute.VALUE]
        )

    return measure


def _with_trusted(bench: Bench) -> bool:
    mechanism = kwp_of(bench)
    key = bench.aes(Attribute.WRAP)
    key.wrap_key(bench.aes(Attribute.ENCRYPT, EXTRACTABLE=True), mechanism=mechanism)
    guarded = bench.aes(Attribute.ENCRYPT, EXTRACTABLE=True, WRAP_WITH_TRUSTED=True)
    return refuses(lambda: key.wrap_key(guarded, mechanism=mechanism)) and refuses(
        lambda: guarded.__setitem__(Attribute.WRAP_WITH_TRUSTED, False)
    )


def _trusted(bench: Bench) -> bool:
    key = bench.aes(Attribute.WRAP)
    return refuses(lambda: key.__setitem__(Attribute.TRUSTED, True)) and refuses(
        lambda: bench.aes(Attribute.WRAP, TRUSTED=True)
    )


def _unwrap_template(bench: Bench) -> bool:
    mechanism = kwp_of(bench)
    demanded = {Attribute.DECRYPT: False}
    key = bench.aes(Attribute.WRAP, Attribute.UNWRAP, UNWRAP_TEMPLATE=demanded)
    wrapped = key.wrap_key(bench.secret(os.urandom(32)), mechanism=mechanism)
    bench.unwrap(key, wrapped, mechanism, DECRYPT=False)
    return refuses(lambda: bench.unwrap(key, wrapped, mechanism, DECRYPT=True))


def _wrap_decrypt(bench: Bench) -> bool:
    bench.aes(Attribute.WRAP)
    return refuses(lambda: bench.aes(Attribute.WRAP, Attribute.DECRYPT))


# ── ALWAYS_AUTHENTICATE ──────────────────────────────────────────────────────────────────────────


def _asks_to_sign(bench: Bench) -> bool:
    _, key = bench.ec_pair(ALWAYS_AUTHENTICATE=True)
    if not refuses(lambda: key.sign(bytes(32), mechanism=Mechanism.ECDSA)):
        return False
    key.sign(bytes(32), mechanism=Mechanism.ECDSA, pin=bench.again)
    return True


def _asks_to_derive(bench: Bench) -> bool:
    _, key = bench.ec_pair(use=Attribute.DERIVE, ALWAYS_AUTHENTICATE=True)
    ours = ec.generate_private_key(ec.SECP256R1())
    return refuses(lambda: derive(key, ours, der=False, kdf=pkcs11.KDF.NULL))


def _asks_to_decrypt(bench: Bench) -> bool:
    public, key = bench.rsa_pair(ALWAYS_AUTHENTICATE=True)
    algorithm = hashes.SHA1()  # noqa: S303  what every token has that has OAEP
    sealed = rsa_public(public).encrypt(
        b"probe", padding.OAEP(padding.MGF1(algorithm), algorithm, None)
    )
    asked = {
        "mechanism": Mechanism.RSA_PKCS_OAEP,
        "mechanism_param": (Mechanism.SHA_1, MGF.SHA1, None),
    }
    if not refuses(lambda: key.decrypt(sealed, **asked)):
        return False
    return bytes(key.decrypt(sealed, pin=bench.again, **asked)) == b"probe"


def _asks_to_unwrap(bench: Bench) -> bool:
    public, key = bench.rsa_pair(use=Attribute.UNWRAP, ALWAYS_AUTHENTICATE=True)
    asked = (Mechanism.SHA_1, MGF.SHA1, None)
    wrapped = public.wrap_key(
        bench.secret(os.urandom(32)), mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=asked
    )
    return refuses(
        lambda: bench.made.append(
            key.unwrap_key(
                ObjectClass.SECRET_KEY,
                KeyType.GENERIC_SECRET,
                wrapped,
                mechanism=Mechanism.RSA_PKCS_OAEP,
                mechanism_param=asked,
                capabilities=pkcs11.MechanismFlag(0),
                template=SESSION,
            )
        )
    )


#: How each of these measures of `custody.keys.probe.MEASURES` is made.
ENFORCED: Mapping[str, Callable[[Bench], bool]] = {
    "enforces.allowed-mechanisms": _allowed_mechanisms,
    "enforces.modifiable": _modifiable,
    "enforces.copyable": _copyable,
    "enforces.sensitive": _sticky(Attribute.SENSITIVE, value=False),
    "enforces.extractable": _sticky(Attribute.EXTRACTABLE, value=True),
    "enforces.wrap-with-trusted": _with_trusted,
    "enforces.trusted": _trusted,
    "enforces.unwrap-template": _unwrap_template,
    "enforces.wrap-decrypt": _wrap_decrypt,
    "always-authenticate.sign": _asks_to_sign,
    "always-authenticate.derive": _asks_to_derive,
    "always-authenticate.decrypt": _asks_to_decrypt,
    "always-authenticate.unwrap": _asks_to_unwrap,
}
