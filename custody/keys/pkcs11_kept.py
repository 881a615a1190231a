"""Measures of keys that a token keeps, for tokens that do not agree on a curve.

Each key is made by its role's full template, as for a person, and destroyed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, Mechanism, MechanismFlag

from custody.crypto.oaepslots import OaepSuite, parameters_of
from custody.errors import Refused, Unavailable
from custody.keys.api import KeyInfo, KeyRole
from custody.keys.pkcs11 import Pkcs11Token
from custody.keys.pkcs11_session import Connection
from custody.keys.probe import Measured

_LABEL = "custody probe"


def measure_kept(token: Pkcs11Token) -> Iterator[Measured]:
    """Answer the measures that begin with ``kept.``, where the token does not offer to agree.

    To be made before others: a library may leave what it gave up in its device's memory.
    """
    offered = token.connection.locate().slot.get_mechanisms()
    for id_, measure in _MEASURES.items():
        if Mechanism.ECDH1_DERIVE in offered:
            yield Measured(id=id_, answer="untested", detail="it offers to agree on a curve")
            continue
        try:
            yield Measured(id=id_, answer="yes" if measure(token) else "no", detail="")
        except (Refused, Unavailable) as error:
            if error.__class__ is Refused and error.check.startswith("token.pin"):
                raise
            yield Measured(id=id_, answer="no", detail=error.reason)


@contextmanager
def _lent(connection: Connection, info: KeyInfo) -> Iterator[None]:
    """Destroy a key when the block ends."""
    try:
        yield
    finally:
        with connection.login(writing=True) as session:
            for item in list(session.get_objects({Attribute.ID: info.id})):
                item.destroy()


def _signs(token: Pkcs11Token) -> bool:
    # What makes the key tries it as well.
    made = token.make(KeyRole.SIGN, _LABEL, ec.SECP256R1())
    with _lent(token.connection, made.info):
        return True


def _stays_in(token: Pkcs11Token) -> bool:
    made = token.make(KeyRole.SIGN, _LABEL, ec.SECP256R1())
    with _lent(token.connection, made.info):
        # A library in front of a chip may set any flag, and still have no value to give.
        _set(token.connection, made.info, Attribute.SENSITIVE, False)
        leaves = _set(token.connection, made.info, Attribute.EXTRACTABLE, True)
        return not _readable(token.connection, made.info) and not (leaves and _wraps(token))


def _set(connection: Connection, info: KeyInfo, name: Attribute, value: object) -> bool:
    """Ask for an attribute to be changed; say whether it was."""
    with connection.login(writing=True) as session:
        key = _private(session, info)
        with suppress(pkcs11.PKCS11Error):
            key[name] = value
        return bool(key[name] == value)


def _readable(connection: Connection, info: KeyInfo) -> bool:
    with connection.login() as session:
        try:
            return bool(_private(session, info)[Attribute.VALUE])
        except pkcs11.PKCS11Error:
            return False


def _wraps(token: Pkcs11Token) -> bool:
    slot = token.connection.locate().slot
    return any(
        MechanismFlag.WRAP & slot.get_mechanism_info(mechanism).flags
        for mechanism in slot.get_mechanisms()
    )


def _private(session: Any, info: KeyInfo) -> Any:
    wanted = {Attribute.ID: info.id, Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
    (key,) = session.get_objects(wanted)
    return key


def _opens(suite: OaepSuite) -> Callable[[Pkcs11Token], bool]:
    def measure(token: Pkcs11Token) -> bool:
        parameters = parameters_of(suite)
        if parameters is None:
            raise AssertionError("internal: not an OAEP suite")
        made = token.decrypting().make(_LABEL, parameters)
        with _lent(token.connection, made.info):
            return True

    return measure


_MEASURES: Mapping[str, Callable[[Pkcs11Token], bool]] = {
    "kept.sign": _signs,
    "kept.secret": _stays_in,
    "kept.oaep-sha256": _opens("RSA2048_OAEP_SHA256"),
    "kept.oaep-sha1": _opens("RSA2048_OAEP_SHA1"),
}
