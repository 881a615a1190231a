"""Templates of our keys in a PKCS#11 token, written in full and read back.

A binding's defaults give an EC key SIGN *and* DERIVE and leave it MODIFIABLE: a share key that
signs would let one prompt stand for another, and a key whose flags can be added to later is only
as good as its last editor.  So no attribute is left to a default, and what the token then says it
stored is compared with what we asked.  PKCS#11 3.1 sections 4.8, 4.9 and 6.3.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.attributes import AttributeMapper

from custody.errors import Malformed, Refused
from custody.keys.api import KeyRole
from custody.keys.profiles import Profile

Template = Mapping[Attribute, Any]

# DER of the namedCurve OBJECT IDENTIFIER, as CKA_EC_PARAMS holds it (RFC 5480 section 2.1.1.1).
CURVES: Mapping[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
PARAMETERS: Mapping[str, bytes] = {curve.name: params for params, curve in CURVES.items()}

#: Longest key label, in characters.
MAX_LABEL_CHARS = 64
#: Roles whose keys may be made so that they can be backed up, under keys that the token trusts.
RECOVERABLE = frozenset({KeyRole.CA})
#: What a key is said to do that asks for the PIN more often than its template.
ALWAYS_AUTHENTICATES = "always-authenticates"

_MECHANISM_WORD = struct.Struct("L")


class _Attribute(ctypes.Structure):
    """CK_ATTRIBUTE (PKCS#11 3.1 section 3.4)."""

    _fields_ = (
        ("type", ctypes.c_ulong),
        ("value", ctypes.c_void_p),
        ("length", ctypes.c_ulong),
    )


def mapper() -> AttributeMapper:
    """Return an attribute mapper that knows what python-pkcs11 leaves out.

    CKA_ALLOWED_MECHANISMS is an array of CK_ULONG, CKA_UNWRAP_TEMPLATE one of CK_ATTRIBUTE, to be
    written only.  A label that is not UTF-8, which a token may hold, reads with replacements.
    """
    known = AttributeMapper()
    known.register_handler(
        Attribute.ALLOWED_MECHANISMS,
        lambda values: b"".join(_MECHANISM_WORD.pack(value) for value in values),
        lambda raw: tuple(word for (word,) in _MECHANISM_WORD.iter_unpack(raw)),
    )
    known.register_handler(
        Attribute.LABEL,
        lambda text: text.encode("utf-8"),
        lambda raw: raw.decode("utf-8", "replace"),
    )
    # The library follows the pointers after this returns, so the mapper holds what they point to.
    held: list[Any] = []

    def nest(template: Template) -> bytes:
        rows = (_Attribute * len(template))()
        for row, (name, value) in zip(rows, template.items(), strict=True):
            packed = known.pack_attribute(name, value)
            buffer = ctypes.create_string_buffer(packed, len(packed))
            held.append(buffer)
            row.type, row.length = name, len(packed)
            row.value = ctypes.addressof(buffer)
        return bytes(rows)

    def unnest(_raw: bytes) -> Template:
        raise pkcs11.FunctionFailed

    known.register_handler(Attribute.UNWRAP_TEMPLATE, nest, unnest)
    return known


def check_label(label: str) -> None:
    """Raise `Malformed` for what is no label of a key here."""
    if not label or len(label) > MAX_LABEL_CHARS or not label.isprintable():
        raise Malformed(f"a key label has 1 to {MAX_LABEL_CHARS} printable characters")


def private_template(
    role: KeyRole,
    *,
    label: str,
    id: bytes,
    recoverable: bool = False,
    always_authenticate: bool = False,
) -> Template:
    """Every attribute of a private key of ``role``.

    A ``recoverable`` one may leave under a key that the token's security officer trusts.  One made
    to ``always_authenticate`` wants the PIN for each use (PKCS#11 3.1 section 4.9).
    """
    if recoverable and role not in RECOVERABLE:
        raise Refused(f"no key for {role.value} is backed up", check="key.role")
    return {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.LABEL: label,
        Attribute.ID: id,
        **_private_flags(role),
        Attribute.ALWAYS_AUTHENTICATE: always_authenticate,
        Attribute.EXTRACTABLE: recoverable,
        Attribute.WRAP_WITH_TRUSTED: recoverable,
        # Last: SoftHSM fixes the object as soon as it reads it.
        Attribute.MODIFIABLE: False,
    }


def public_template(role: KeyRole, *, label: str, id: bytes, curve: ec.EllipticCurve) -> Template:
    """Every attribute of the public key stored beside it."""
    return {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.LABEL: label,
        Attribute.ID: id,
        Attribute.EC_PARAMS: PARAMETERS[curve.name],
        **_public_flags(role),
        Attribute.MODIFIABLE: False,
    }


def kek_template(*, label: str, id: bytes, mechanism: Mechanism) -> Template:
    """Every attribute of an AES key that wraps keys by ``mechanism``, and does nothing else."""
    return {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.LABEL: label,
        Attribute.ID: id,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.WRAP_WITH_TRUSTED: False,
        Attribute.WRAP: True,
        Attribute.UNWRAP: True,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
        Attribute.DERIVE: False,
        Attribute.ALLOWED_MECHANISMS: (mechanism,),
        Attribute.COPYABLE: False,
        Attribute.DESTROYABLE: False,
        Attribute.MODIFIABLE: False,
    }


def derived_template(size: int) -> Template:
    """Template of the ECDH result: a session object that may be read, since the host needs it."""
    return {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.TOKEN: False,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: False,
        Attribute.EXTRACTABLE: True,
        Attribute.VALUE_LEN: size,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
        Attribute.WRAP: False,
        Attribute.UNWRAP: False,
        Attribute.DERIVE: False,
    }


def signs_by_pin(role: KeyRole, profile: Profile) -> bool:
    """Say whether a key of ``role`` is made to want the PIN for each use.

    A person's signing key is, where the profile says that the token then asks.  An authority's and
    a log's sign what nobody types a PIN for; and C_DeriveKey has no beginning to log in after.
    """
    return role is KeyRole.SIGN and _asks_to("sign", profile)


def decrypts_by_pin(profile: Profile) -> bool:
    """Say the same of an RSA share key."""
    return _asks_to("decrypt", profile)


def check_private(
    key: pkcs11.Object, role: KeyRole, profile: Profile, *, always_authenticate: bool = False
) -> tuple[str, ...]:
    """Compare a private key with its role's template; return the quirks that excuse differences.

    A key that wants the PIN for each use is stricter than any template and always taken; one just
    made to ``always_authenticate`` must.  Raises `Refused` (``key.template``) naming the attributes
    nothing excuses.
    """
    made = {
        Attribute.LOCAL: True,
        Attribute.ALWAYS_SENSITIVE: True,
        Attribute.NEVER_EXTRACTABLE: True,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.MODIFIABLE: False,
    }
    wanted = {**_private_flags(role), **made}
    if role in RECOVERABLE and _read(key, Attribute.EXTRACTABLE) is True:
        # As its backup will tell it, and as another token must make it again.
        wanted[Attribute.ALWAYS_AUTHENTICATE] = False
        # Where it was made cannot be asked of one that may have come from a backup.
        del wanted[Attribute.LOCAL], wanted[Attribute.ALWAYS_SENSITIVE]
        wanted |= {
            Attribute.EXTRACTABLE: True,
            Attribute.WRAP_WITH_TRUSTED: True,
            Attribute.NEVER_EXTRACTABLE: False,
        }
        return _compare(key, wanted, "private", profile)
    stricter = check_asking(
        key, profile, made_so=always_authenticate, usual=signs_by_pin(role, profile)
    )
    return _compare(key, wanted, "private", profile) + stricter


def check_asking(
    key: pkcs11.Object, profile: Profile, *, made_so: bool, usual: bool
) -> tuple[str, ...]:
    """Judge CKA_ALWAYS_AUTHENTICATE, as `check_private` does; name what is not ``usual``."""
    if always_authenticates(key):
        return () if usual else (ALWAYS_AUTHENTICATES,)
    return _compare(key, {Attribute.ALWAYS_AUTHENTICATE: made_so}, "private", profile)


def always_authenticates(key: pkcs11.Object) -> bool:
    """Say whether a key wants the PIN for each use."""
    return _read(key, Attribute.ALWAYS_AUTHENTICATE) is True


def check_public(key: pkcs11.Object, role: KeyRole, profile: Profile) -> tuple[str, ...]:
    """Compare a public key object with its role's template, as `check_private` does."""
    made = {Attribute.KEY_TYPE: KeyType.EC, Attribute.MODIFIABLE: False}
    return _compare(key, {**_public_flags(role), **made}, "public", profile)


def check_secret(key: pkcs11.Object, wanted: Template, profile: Profile) -> tuple[str, ...]:
    """Compare a secret key with what it must be, as `check_private` does."""
    return _compare(key, wanted, "secret", profile)


def check_attributes(
    key: pkcs11.Object, wanted: Template, kind: str, profile: Profile
) -> tuple[str, ...]:
    """Compare an object of a ``kind`` with what it must be, as `check_private` does."""
    return _compare(key, wanted, kind, profile)


def asked(template: Template, kind: str, profile: Profile) -> dict[Attribute, Any]:
    """Return a template as the device can be asked for it: as its profile says that it insists.

    What it makes is compared with the template itself, and the quirk is named.
    """
    insisted = {
        quirk.attribute: quirk.reads
        for quirk in profile.quirk
        if quirk.object == kind and quirk.insists
    }
    return {name: insisted.get(name.name, value) for name, value in template.items()}


def public_key_of(item: pkcs11.Object) -> ec.EllipticCurvePublicKey:
    """Read a public key object: CKA_EC_PARAMS and CKA_EC_POINT, of our curves, strictly DER.

    The point is an uncompressed one in an OCTET STRING (PKCS#11 3.1 section 6.3.3), on its curve.
    """
    curve = CURVES.get(bytes(item[Attribute.EC_PARAMS]))
    if curve is None:
        raise Malformed("not a key on a named curve P-256, P-384 or P-521")
    size = 1 + 2 * ((curve.key_size + 7) // 8)
    head = bytes([0x04, size]) if size < 128 else bytes([0x04, 0x81, size])
    raw = bytes(item[Attribute.EC_POINT])
    point = raw.removeprefix(head)
    if len(raw) != len(head) + size or len(point) != size or point[0] != 0x04:
        raise Malformed("not an uncompressed point in an OCTET STRING")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as error:
        raise Malformed("not a point of its curve") from error


def _private_flags(role: KeyRole) -> dict[Attribute, Any]:
    mechanism = Mechanism.ECDH1_DERIVE if role.derives else Mechanism.ECDSA
    return {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.WRAP_WITH_TRUSTED: False,
        Attribute.SIGN: not role.derives,
        Attribute.SIGN_RECOVER: False,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.DERIVE: role.derives,
        Attribute.ALLOWED_MECHANISMS: (mechanism,),
        Attribute.COPYABLE: False,
        Attribute.DESTROYABLE: _destroyable(role),
    }


def _public_flags(role: KeyRole) -> dict[Attribute, Any]:
    return {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.VERIFY: not role.derives,
        Attribute.VERIFY_RECOVER: False,
        Attribute.ENCRYPT: False,
        Attribute.WRAP: False,
        Attribute.DERIVE: False,
        Attribute.COPYABLE: False,
        Attribute.DESTROYABLE: _destroyable(role),
    }


def _destroyable(role: KeyRole) -> bool:
    # A person's keys are replaced when he leaves.  Losing the authority's or the log's by one
    # wrong command would end an environment; they go when the token is initialised anew.
    return role in (KeyRole.SIGN, KeyRole.SHARE)


def _asks_to(use: str, profile: Profile) -> bool:
    return any(
        (known.id, known.answer) == (f"always-authenticate.{use}", "yes")
        for known in profile.behaviour
    )


def _compare(
    key: pkcs11.Object, wanted: Mapping[Attribute, Any], kind: str, profile: Profile
) -> tuple[str, ...]:
    quirks: list[str] = []
    wrong: list[str] = []
    for attribute, value in wanted.items():
        found = _read(key, attribute)
        if type(found) is type(value) and found == value:
            continue
        excuse = next(
            (
                quirk.id
                for quirk in profile.quirk
                if (quirk.object, quirk.attribute) == (kind, attribute.name)
                and quirk.reads == found
            ),
            None,
        )
        if excuse is None:
            wrong.append(f"{attribute.name} is {_words(found)}")
        else:
            quirks.append(excuse)
    if wrong:
        raise Refused(
            f"the token's {kind} key is not as its role demands: {', '.join(wrong)}",
            check="key.template",
            hint="make the key with custody; a key made otherwise may do more than its role",
        )
    return tuple(quirks)


def _read(key: pkcs11.Object, attribute: Attribute) -> Any:
    try:
        value = key[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.FunctionFailed, pkcs11.AttributeSensitive):
        return "missing"
    return "empty" if value == () else value


def _words(found: object) -> str:
    if isinstance(found, tuple):
        return " ".join(f"{value:#x}" for value in found)
    return str(found).lower()
