"""Keys that a token's security officer trusts to take others out, and those that bring them in.

PKCS#11 3.1 sections 4.7 to 4.10.  A recovery key's public half is RSA; the *carrier* beside it is
an AES key, for keys that are too long for RSA-OAEP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto.wrappingkey import load_wrapping_public
from custody.errors import Refused
from custody.formats.keybackup import (
    CARRIER_LABEL,
    WRAPPING_LABEL,
    CarrierMechanism,
    OaepHash,
    carrier_id,
    wrapping_id,
)
from custody.keys.pkcs11_templates import Template

_OAEP: Mapping[OaepHash, tuple[Mechanism, MGF]] = {
    "sha1": (Mechanism.SHA_1, MGF.SHA1),
    "sha256": (Mechanism.SHA256, MGF.SHA256),
    "sha384": (Mechanism.SHA384, MGF.SHA384),
    "sha512": (Mechanism.SHA512, MGF.SHA512),
}
CARRIERS: tuple[CarrierMechanism, ...] = ("AES_KEY_WRAP_PAD", "AES_KEY_WRAP_KWP")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def trusted_rsa(spki: bytes) -> Template:
    """Every attribute of a recovery key's public half, as the security officer makes it."""
    numbers = load_wrapping_public(spki).public_numbers()
    return {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.LABEL: WRAPPING_LABEL,
        Attribute.ID: wrapping_id(spki),
        Attribute.MODULUS: _octets(numbers.n),
        Attribute.PUBLIC_EXPONENT: _octets(numbers.e),
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.TRUSTED: True,
        Attribute.WRAP: True,
        Attribute.ENCRYPT: False,
        Attribute.VERIFY: False,
        Attribute.VERIFY_RECOVER: False,
        Attribute.ALLOWED_MECHANISMS: (Mechanism.RSA_PKCS_OAEP,),
        Attribute.COPYABLE: False,
        # Else whoever knows the user's PIN could destroy it.
        Attribute.DESTROYABLE: False,
        Attribute.MODIFIABLE: False,
    }


def carrier_template(spki: bytes, mechanism: CarrierMechanism) -> Template:
    """Every attribute of the AES key that carries EC keys."""
    return {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.LABEL: CARRIER_LABEL,
        Attribute.ID: carrier_id(spki),
        Attribute.TOKEN: True,
        # The security officer makes no private objects.  Nobody reads it, and nobody who is not
        # logged in wraps anything that is worth it.
        Attribute.PRIVATE: False,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: True,
        Attribute.WRAP_WITH_TRUSTED: True,
        Attribute.TRUSTED: True,
        Attribute.WRAP: True,
        Attribute.UNWRAP: False,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
        Attribute.DERIVE: False,
        Attribute.ALLOWED_MECHANISMS: (Mechanism[mechanism],),
        Attribute.COPYABLE: False,
        Attribute.DESTROYABLE: False,
        Attribute.MODIFIABLE: False,
    }


def session_private(key: rsa.RSAPrivateKey) -> dict[Attribute, Any]:
    """The private half for one restore: a session object that unwraps and does nothing else."""
    numbers = key.private_numbers()
    public = numbers.public_numbers
    return {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.TOKEN: False,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.UNWRAP: True,
        Attribute.DECRYPT: False,
        Attribute.SIGN: False,
        Attribute.SIGN_RECOVER: False,
        Attribute.ALLOWED_MECHANISMS: (Mechanism.RSA_PKCS_OAEP,),
        Attribute.MODULUS: _octets(public.n),
        Attribute.PUBLIC_EXPONENT: _octets(public.e),
        Attribute.PRIVATE_EXPONENT: _octets(numbers.d),
        Attribute.PRIME_1: _octets(numbers.p),
        Attribute.PRIME_2: _octets(numbers.q),
        Attribute.EXPONENT_1: _octets(numbers.dmp1),
        Attribute.EXPONENT_2: _octets(numbers.dmq1),
        Attribute.COEFFICIENT: _octets(numbers.iqmp),
        Attribute.MODIFIABLE: False,
    }


def trusted_search(spki: bytes) -> dict[Attribute, Any]:
    """Find a wrapping key that the security officer trusts."""
    template = trusted_rsa(spki)
    named = (Attribute.CLASS, Attribute.KEY_TYPE, Attribute.MODULUS, Attribute.TRUSTED)
    return {name: template[name] for name in named}


def carrier_search(spki: bytes) -> dict[Attribute, Any]:
    """Find the carrier beside it."""
    template = carrier_template(spki, "AES_KEY_WRAP_PAD")
    named = (Attribute.CLASS, Attribute.KEY_TYPE, Attribute.ID, Attribute.TRUSTED)
    return {name: template[name] for name in named}


def carrier_of(key: Any) -> CarrierMechanism:
    """Return how a carrier carries, by its one mechanism."""
    allowed = key[Attribute.ALLOWED_MECHANISMS]
    for name in CARRIERS:
        if allowed == (Mechanism[name],):
            return name
    raise Refused("the carrying key may do more than carry", check="key.template")


def held_to(key: Any, template: Template) -> None:
    """Refuse a trusted key that is not as it was asked for.

    A secret one must have been made in the token besides: what its security officer brought there,
    he may know, and with it whatever leaves under it.
    """
    if template[Attribute.CLASS] is ObjectClass.SECRET_KEY:
        template = {**template, Attribute.LOCAL: True, Attribute.ALWAYS_SENSITIVE: True}
    wrong = [name.name for name, value in template.items() if key[name] != value]
    if wrong:
        raise Refused(
            f"the token's trusted key is not as it must be: {', '.join(wrong)}",
            check="key.template",
        )


def the_one(session: Any, kind: ObjectClass, id_: bytes, *, where: str) -> Any:
    """Return the one object of a class with this id; none or several are `Refused`."""
    found = list(session.get_objects({Attribute.CLASS: kind, Attribute.ID: id_}))
    if len(found) != 1:
        raise Refused(f"{len(found)} keys have this id", check="key.ambiguous", where=where)
    return found[0]


def by_oaep(name: OaepHash) -> dict[str, Any]:
    """Return how the binding is asked for RSA-OAEP with one hash, empty label."""
    digest, mask = _OAEP[name]
    return {"mechanism": Mechanism.RSA_PKCS_OAEP, "mechanism_param": (digest, mask, None)}
