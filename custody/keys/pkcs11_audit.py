"""Reading all that a PKCS#11 token holds, without using any of it; and which tokens there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag

from custody.errors import CustodyError, Refused
from custody.keys import pkcs11_module as modules
from custody.keys.api import KeyRole, SeenToken
from custody.keys.audit import AuditReport, HeldObject, ObjectKind, audit
from custody.keys.pin import PinNotice, PinReader
from custody.keys.pkcs11 import Pkcs11Token, role_in
from custody.keys.pkcs11_kek import KEK_PREFIX, check_kek
from custody.keys.pkcs11_oaep import OAEP_PREFIX, check_oaep
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import check_private
from custody.keys.profiles import Profile, keeps_nothing, library_paths, load_profiles
from custody.keys.uri import Pkcs11Uri

#: More objects than any of ours has; a token with more is looked at in vain.
MAX_OBJECTS = 4096

_KINDS: dict[ObjectClass, ObjectKind] = {
    ObjectClass.PRIVATE_KEY: "private",
    ObjectClass.SECRET_KEY: "secret",
    ObjectClass.PUBLIC_KEY: "public",
    ObjectClass.CERTIFICATE: "certificate",
    ObjectClass.DATA: "data",
}
_COMMON = (Attribute.PRIVATE, Attribute.MODIFIABLE, Attribute.COPYABLE, Attribute.DESTROYABLE)
_SECRET = (
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.ALWAYS_SENSITIVE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.WRAP_WITH_TRUSTED,
    Attribute.LOCAL,
    Attribute.DERIVE,
    Attribute.SIGN,
    Attribute.DECRYPT,
    Attribute.UNWRAP,
)
_READ: dict[ObjectKind, tuple[Attribute, ...]] = {
    "private": (*_COMMON, *_SECRET, Attribute.ALWAYS_AUTHENTICATE, Attribute.SIGN_RECOVER),
    "secret": (
        *_COMMON,
        *_SECRET,
        Attribute.ENCRYPT,
        Attribute.WRAP,
        Attribute.VERIFY,
        Attribute.TRUSTED,
    ),
    "public": (
        *_COMMON,
        Attribute.VERIFY,
        Attribute.ENCRYPT,
        Attribute.WRAP,
        Attribute.TRUSTED,
    ),
    "certificate": _COMMON,
    "data": _COMMON,
    "other": (),
}


def audit_token(
    uri: Pkcs11Uri, *, pin: PinReader | None = None, notice: PinNotice | None = None
) -> AuditReport:
    """List what the one token ``uri`` names holds, and judge it.  Nothing in it is used."""
    connection = Connection(modules.load_module(uri), uri, reader=pin, notice=notice)
    try:
        token = connection.locate()
        profile = connection.module.profile_of(token)
        with connection.login() as session:
            objects = tuple(sorted(_objects(session, profile), key=_order))
    finally:
        connection.close()
    return AuditReport(
        kind="custody/token-audit/v1",
        label=token.label,
        serial=modules.serial_of(token),
        profile=profile.name,
        objects=objects,
        findings=audit(objects),
    )


def held_objects(token: Pkcs11Token) -> tuple[HeldObject, ...]:
    """List what an open token holds.  Nothing in it is used, and no PIN is asked a second time."""
    with token.looked_into() as (session, profile):
        return tuple(sorted(_objects(session, profile), key=_order))


def _order(item: HeldObject) -> tuple[str, ...]:
    return item.label, item.id, item.kind, item.digest


def _objects(session: Any, profile: Profile) -> Iterator[HeldObject]:
    for number, item in enumerate(session.get_objects({})):
        if number == MAX_OBJECTS:
            raise Refused(f"the token holds more than {MAX_OBJECTS} objects", check="token.objects")
        yield _describe(item, profile)


def _describe(item: Any, profile: Profile) -> HeldObject:
    kind = _KINDS.get(_value(item, Attribute.CLASS), "other")
    told = {name.name: _value(item, name) for name in _READ[kind]}
    id_ = _value(item, Attribute.ID) or b""
    modulus = _value(item, Attribute.MODULUS) if kind in ("private", "public") else None
    type_ = _value(item, Attribute.KEY_TYPE)
    return HeldObject(
        kind=kind,
        type=type_.name if isinstance(type_, KeyType) else "",
        label=str(_value(item, Attribute.LABEL) or ""),
        id=bytes(id_).hex(),
        role=_role(item, kind, bytes(id_), profile),
        flags=tuple(sorted(name for name, value in told.items() if value is True)),
        untold=tuple(sorted(name for name, value in told.items() if value is None)),
        mechanisms=tuple(map(_name, _value(item, Attribute.ALLOWED_MECHANISMS) or ())),
        size_bits=int.from_bytes(modulus or b"", "big").bit_length(),
        digest=_digest(item) if kind in ("private", "public") else "",
        excused=tuple(sorted(quirk.attribute for quirk in profile.quirk if quirk.object == kind)),
    )


def _value(item: Any, name: Attribute) -> Any:
    """Read one attribute; None where the token does not know it or keeps it."""
    # ValueError is a number that no enumeration of the binding has; the object is still there.
    with suppress(
        pkcs11.AttributeTypeInvalid,
        pkcs11.AttributeSensitive,
        pkcs11.FunctionFailed,
        pkcs11.GeneralError,
        NotImplementedError,
        ValueError,
    ):
        return item[name]
    return None


def _digest(item: Any) -> str:
    # Private keys tell their modulus to everybody; of points some tokens do.
    parts = [_value(item, name) for name in (Attribute.EC_POINT, Attribute.MODULUS)]
    told = b"".join(bytes(part).lstrip(b"\0") for part in parts if part)
    return hashlib.sha256(told).hexdigest() if told else ""


def _name(number: int) -> str:
    try:
        return Mechanism(number).name.lstrip("_")
    except ValueError:
        return f"{number:#010x}"


def _role(item: Any, kind: ObjectKind, id_: bytes, profile: Profile) -> str:
    if kind == "secret" and id_.startswith(KEK_PREFIX):
        try:
            check_kek(item, profile, recoverable=_value(item, Attribute.EXTRACTABLE) is True)
        except Refused:
            return ""
        return "kek"
    if kind != "private":
        return ""
    if id_.startswith(OAEP_PREFIX):
        try:
            check_oaep(item, profile)
        except Refused:
            return ""
        return "oaep"
    role: KeyRole | None = role_in(id_)
    if role is None:
        return ""
    try:
        check_private(item, role, profile)
    except Refused:
        return ""
    return role.value


def list_tokens(uri: Pkcs11Uri | None = None) -> tuple[tuple[SeenToken, ...], tuple[str, ...]]:
    """List the tokens of the library ``uri`` names, or of every profile's; and what did not load.

    No PIN is asked: what is shown is what a token shows to everybody.
    """
    if uri is not None:
        return tuple(_seen(modules.load_module(uri), uri)), ()
    seen: list[SeenToken] = []
    silent: list[str] = []
    loaded: set[str] = set()
    for profile in load_profiles():
        if not any(path.is_file() for path in library_paths(profile)) or keeps_nothing(profile):
            continue
        named = Pkcs11Uri(module_name=profile.name)
        try:
            module = modules.load_module(named)
            if str(module.path) not in loaded:
                loaded.add(str(module.path))
                seen += _seen(module, named)
        except CustodyError as error:
            silent.append(f"{profile.name}: {error.reason}")
    return tuple(seen), tuple(silent)


def _seen(module: modules.Module, uri: Pkcs11Uri) -> Iterator[SeenToken]:
    with modules.LOCK:
        found = module.tokens(uri)
    for token in found:
        profile = module.profile_of(token)
        yield SeenToken(
            uri=str(
                Pkcs11Uri(
                    token=token.label,
                    serial=modules.serial_of(token),
                    module_path=uri.module_path,
                    module_name=uri.module_name,
                )
            ),
            label=token.label,
            manufacturer=token.manufacturer_id,
            model=token.model,
            serial=modules.serial_of(token),
            profile=profile.name,
            token_class=profile.token_class,
            pinpad=bool(token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH),
            pin=modules.pin_state(token),
        )
