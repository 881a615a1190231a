"""The attributes of a key as its token tells them, in the words of its backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.formats.keybackup import BackedUpRole, KeyAttribute

#: Where a key was and what could be done with it there: not what it is.
HISTORY = frozenset({"LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE"})
_FLAGS = (
    *("TOKEN", "PRIVATE", "SENSITIVE", "EXTRACTABLE", "WRAP_WITH_TRUSTED", "SIGN", "DECRYPT"),
    *("UNWRAP", "DERIVE", "COPYABLE", "DESTROYABLE", "MODIFIABLE", *HISTORY),
)
_OWN: Mapping[BackedUpRole, tuple[str, ...]] = {
    "kek": ("ENCRYPT", "VERIFY", "WRAP"),
    "ca": ("SIGN_RECOVER", "ALWAYS_AUTHENTICATE"),
}
_NAMED = ("CLASS", "KEY_TYPE", "LABEL", "ID", "ALLOWED_MECHANISMS")


def attributes_of(key: Any, role: BackedUpRole) -> tuple[KeyAttribute, ...]:
    """Read all attributes that a key of this role has."""
    names = sorted((*_FLAGS, *_OWN[role], *_NAMED))
    return tuple(KeyAttribute(name=name, value=said(key[Attribute[name]])) for name in names)


def said(value: Any) -> str:
    """Say one value: a flag, a name or label, mechanisms by name, else bytes in hex."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(value, ObjectClass | KeyType):
        return value.name
    if isinstance(value, tuple):
        return " ".join(Mechanism(number).name for number in value)
    return bytes(value).hex()
