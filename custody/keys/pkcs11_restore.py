"""Bringing a key that was backed up into a PKCS#11 token.  PKCS#11 3.1 section 5.18.4.

C_UnwrapKey makes of a blob whatever its caller says, and a blob says nothing of itself: the role's
template is what is asked for, what a custodian signed must agree with it, and the key must be the
one whose check value he signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto.signature import load_ec_public, public_bytes
from custody.crypto.wrappingkey import public_of
from custody.errors import Malformed, Refused
from custody.formats.keybackup import BackedUpRole, KeyBackup
from custody.keys.api import KeyRole
from custody.keys.pkcs11_attributes import HISTORY, attributes_of, said
from custody.keys.pkcs11_kek import (
    KEK_PREFIX,
    check_kek,
    check_value,
    full_kek_template,
    mechanisms_for,
)
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import (
    Template,
    check_private,
    private_template,
    public_key_of,
    public_template,
)
from custody.keys.pkcs11_trusted import by_oaep, carrier_template, session_private, the_one
from custody.keys.profiles import Profile

_NO_USE = pkcs11.MechanismFlag(0)
#: What a token gives in answer to a wrapped key that is not what it must be.
_UNREADABLE = (
    pkcs11.GeneralError,
    pkcs11.WrappedKeyInvalid,
    pkcs11.WrappedKeyLenRange,
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.FunctionFailed,
)


class Pkcs11Restore:
    """One token, to bring keys into."""

    def __init__(self, connection: Connection, profile: Profile) -> None:
        self._connection = connection
        self._profile = profile

    @property
    def _where(self) -> str:
        return self._connection.where

    def check_new(self, backup: KeyBackup) -> None:
        """Refuse a key that is there, or not such a key; see `Backups.check_new`."""
        self._template(backup)
        with self._connection.login() as session:
            self._check_absent(session, backup)

    def restore(self, backup: KeyBackup, private: rsa.RSAPrivateKey) -> None:
        """Bring a key back; see `Backups.restore`."""
        if public_of(private) != backup.wrapping.spki:
            raise Refused("the wrapping key is another", check="backup.wrapping")
        template = self._template(backup)
        with self._connection.login(writing=True) as session:
            self._check_absent(session, backup)
            with self._unwrapping(session, backup, private) as (key, mechanism, blob):
                trial = self._unwrap(key, backup.role, mechanism, blob, _passing(template))
                try:
                    self._prove(session, trial, backup)
                finally:
                    trial.destroy()
                if backup.spki is not None:
                    self._lay_public(session, backup)
                made = self._unwrap(key, backup.role, mechanism, blob, template)
            made = the_one(session, _CLASSES[backup.role], backup.id, where=self._where)
            self._prove(session, made, backup)
            self._read_back(made, backup)

    def _template(self, backup: KeyBackup) -> Template:
        """Return the role's template; attributes in the backup that differ are refused by name."""
        if backup.role == "kek":
            if not backup.id.startswith(KEK_PREFIX):
                raise Refused("the id is no key-encryption key's", check="backup.attributes")
            template = full_kek_template(
                label=backup.label,
                id=backup.id,
                mechanism=_mechanism_of(backup),
                recoverable=True,
                profile=self._profile,
            )
        else:
            if not backup.id.startswith(f"{KeyRole.CA.value}-".encode()):
                raise Refused("the id is no authority key's", check="backup.attributes")
            template = private_template(
                KeyRole.CA, label=backup.label, id=backup.id, recoverable=True
            )
        wanted = {
            name.name: said(value)
            for name, value in template.items()
            if name is not Attribute.UNWRAP_TEMPLATE
        }
        told = {item.name: item.value for item in backup.attributes if item.name not in HISTORY}
        wrong = sorted(name for name, value in told.items() if wanted.get(name) != value)
        wrong += sorted(f"{name} is not told" for name in set(wanted) - set(told))
        if wrong:
            raise Refused(
                f"the attributes are not those of such a key: {', '.join(wrong)}",
                check="backup.attributes",
            )
        return template

    def _check_absent(self, session: Any, backup: KeyBackup) -> None:
        """Refuse to lay a key beside one that is, or is called, the same."""
        wanted = {Attribute.CLASS: _CLASSES[backup.role], Attribute.ID: backup.id}
        there = bool(list(session.get_objects(wanted)))
        if backup.role == "kek":
            keys = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
            for key in list(session.get_objects(keys)):
                try:
                    mechanism = check_kek(key, self._profile, recoverable=True)
                except Refused:
                    continue
                there |= check_value(session, key, mechanism) == backup.check
        else:
            public = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC}
            for item in list(session.get_objects(public)):
                beside = {
                    Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                    Attribute.ID: bytes(item[Attribute.ID]),
                }
                try:
                    same = public_bytes(public_key_of(item)) == backup.spki
                except Malformed:
                    continue
                there |= same and bool(list(session.get_objects(beside)))
        if there:
            raise Refused(
                "this key is in the token already",
                check="backup.exists",
                where=self._where,
                hint="restore into a new token",
            )

    @contextmanager
    def _unwrapping(
        self, session: Any, backup: KeyBackup, private: rsa.RSAPrivateKey
    ) -> Iterator[tuple[Any, Mapping[str, Any], bytes]]:
        """Give the key that unwraps, how it does, and what; session objects, gone afterwards."""
        opener = session.create_object(session_private(private))
        try:
            how = by_oaep(backup.oaep_hash)
            if backup.carrier is None or backup.carried is None:
                yield opener, how, backup.wrapped
                return
            template: dict[Attribute, Any] = dict(carrier_template(b"", backup.carrier))
            del template[Attribute.TRUSTED]
            template |= {
                Attribute.TOKEN: False,
                Attribute.PRIVATE: True,
                Attribute.WRAP: False,
                Attribute.UNWRAP: True,
                Attribute.EXTRACTABLE: False,
                Attribute.WRAP_WITH_TRUSTED: False,
                Attribute.DESTROYABLE: True,
            }
            carrier = self._unwrap(opener, "kek", how, backup.wrapped, template)
            try:
                yield carrier, {"mechanism": Mechanism[backup.carrier]}, backup.carried
            finally:
                carrier.destroy()
        finally:
            opener.destroy()

    def _unwrap(
        self,
        key: Any,
        role: BackedUpRole,
        how: Mapping[str, Any],
        blob: bytes,
        template: Template,
    ) -> Any:
        given: dict[Attribute, Any] = {
            name: value
            for name, value in template.items()
            if name not in (Attribute.CLASS, Attribute.KEY_TYPE, Attribute.MODIFIABLE)
        }
        if role == "ca":
            # What the binding would add for a secret key, and tokens refuse of a private one.
            given |= dict.fromkeys(
                (Attribute.ENCRYPT, Attribute.WRAP, Attribute.VERIFY), pkcs11.DEFAULT
            )
        given |= {Attribute.MODIFIABLE: False}
        try:
            return key.unwrap_key(
                _CLASSES[role],
                KeyType.AES if role == "kek" else KeyType.EC,
                blob,
                store=template[Attribute.TOKEN],
                capabilities=_NO_USE,
                template=given,
                **how,
            )
        except _UNREADABLE as error:
            raise Refused(
                "the token does not unwrap it: it was changed, is of another key, or finds no room",
                check="backup.unwrap",
                where=self._where,
            ) from error

    def _prove(self, session: Any, key: Any, backup: KeyBackup) -> None:
        """Refuse a key that is not the one whose check value was signed."""
        if backup.role == "kek":
            found = check_value(session, key, _mechanism_of(backup))
            good = hmac.compare_digest(found, backup.check)
        else:
            good = _signs(key, cast("bytes", backup.spki))
        if not good:
            raise Refused(
                "what was unwrapped is another key than the one that was backed up",
                check="backup.check",
                where=self._where,
            )

    def _lay_public(self, session: Any, backup: KeyBackup) -> None:
        public = load_ec_public(cast("bytes", backup.spki))
        template = public_template(KeyRole.CA, label=backup.label, id=backup.id, curve=public.curve)
        there = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: backup.id}
        if not list(session.get_objects(there)):
            session.create_object({Attribute.EC_POINT: _point(public), **template})

    def _read_back(self, key: Any, backup: KeyBackup) -> None:
        if backup.role == "kek":
            check_kek(key, self._profile, recoverable=True)
        else:
            check_private(key, KeyRole.CA, self._profile)
        now = {item.name: item.value for item in attributes_of(key, backup.role)}
        wrong = [
            item.name
            for item in backup.attributes
            if item.name not in HISTORY and now.get(item.name) != item.value
        ]
        if wrong:
            raise Refused(
                f"the token gave it other attributes: {', '.join(wrong)}",
                check="backup.attributes",
                where=self._where,
                hint="initialise the token anew: this key is not what it was",
            )


_CLASSES: Mapping[BackedUpRole, ObjectClass] = {
    "kek": ObjectClass.SECRET_KEY,
    "ca": ObjectClass.PRIVATE_KEY,
}


def _mechanism_of(backup: KeyBackup) -> Mechanism:
    told = next((a.value for a in backup.attributes if a.name == "ALLOWED_MECHANISMS"), "")
    if told not in mechanisms_for(recoverable=True):
        raise Refused(
            "the attributes are not those of such a key: ALLOWED_MECHANISMS",
            check="backup.attributes",
        )
    return Mechanism[told]


def _passing(template: Template) -> Template:
    """Make of a template that of a session object, to be destroyed again."""
    return {**template, Attribute.TOKEN: False, Attribute.DESTROYABLE: True}


def _signs(key: Any, spki: bytes) -> bool:
    public = load_ec_public(spki)
    size = (public.curve.key_size + 7) // 8
    digest = hashlib.sha256(spki).digest()
    raw = bytes(key.sign(digest, mechanism=Mechanism.ECDSA))
    r, s = (int.from_bytes(half, "big") for half in (raw[:size], raw[size:]))
    try:
        public.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def _point(public: ec.EllipticCurvePublicKey) -> bytes:
    """Write CKA_EC_POINT: an uncompressed point in an OCTET STRING of less than 128 bytes."""
    numbers = public.public_numbers()
    size = (public.curve.key_size + 7) // 8
    point = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    return bytes([0x04, len(point)]) + point
