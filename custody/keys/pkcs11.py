"""Keys in PKCS#11 tokens, as ``cryptography`` private keys.  PKCS#11 3.1 (OASIS).

A key object is light: it knows its token, its id and its public key, and opens a session, logs
in, works, logs out and closes for every operation.  Login belongs to the whole process in PKCS#11,
so a login left standing would serve every other thread and library in it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag

from custody.crypto.signature import public_bytes
from custody.encoding import KeyId
from custody.encoding import key_id as digest_of
from custody.errors import CustodyError, Malformed, Refused, Unavailable
from custody.keys import pkcs11_module as modules
from custody.keys.api import KeyInfo, KeyRole, TokenInfo
from custody.keys.pin import PinNotice, PinReader
from custody.keys.pkcs11_backup import Pkcs11Backups
from custody.keys.pkcs11_kek import Pkcs11Wrapping
from custody.keys.pkcs11_key import TokenKey
from custody.keys.pkcs11_oaep import Pkcs11OaepKeys
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import (
    PARAMETERS,
    Template,
    asked,
    check_label,
    check_private,
    check_public,
    private_template,
    public_key_of,
    public_template,
    signs_by_pin,
)
from custody.keys.profiles import Profile
from custody.keys.uri import Pkcs11Uri


def open_token(
    uri: Pkcs11Uri, *, pin: PinReader | None = None, notice: PinNotice | None = None
) -> Pkcs11Token:
    """Open the one token ``uri`` names, for one command.

    ``pin`` asks the person, if the URI has no ``pin-source``; nothing is asked before the first
    operation that needs it.  A token with keys of its own takes it there: ``notice`` says so.
    No such token: `Unavailable`; several: `Refused`
    (``token.ambiguous``).
    """
    return Pkcs11Token(modules.load_module(uri), uri, pin=pin, notice=notice)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A private key object, and one public key stored under its id."""

    private: pkcs11.Object
    id: bytes
    label: str
    public: ec.EllipticCurvePublicKey
    key_id: KeyId


class Pkcs11Token:
    """A `Token` (custody.keys.api) behind a PKCS#11 library."""

    def __init__(
        self,
        module: modules.Module,
        uri: Pkcs11Uri,
        *,
        pin: PinReader | None,
        notice: PinNotice | None = None,
    ) -> None:
        self._connection = Connection(module, uri, reader=pin, notice=notice)
        token = self._connection.locate()
        self._profile: Profile = self._connection.module.profile_of(token)
        self._uri = Pkcs11Uri(
            token=token.label,
            serial=modules.serial_of(token),
            module_path=uri.module_path,
            module_name=uri.module_name,
        )

    def __repr__(self) -> str:
        return f"<Pkcs11Token {self._uri}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    @property
    def info(self) -> TokenInfo:
        """The token's description of itself, as it is now."""
        token = self._connection.locate()
        major, minor = token.firmware_version
        return TokenInfo(
            label=token.label,
            manufacturer=token.manufacturer_id,
            model=token.model,
            serial=modules.serial_of(token),
            firmware=f"{major}.{minor}",
            library=self._connection.module.description,
            profile=self._profile.name,
            token_class=self._profile.token_class,
            pin_count_low=bool(token.flags & TokenFlag.USER_PIN_COUNT_LOW),
            pin_final_try=bool(token.flags & TokenFlag.USER_PIN_FINAL_TRY),
            pin_locked=bool(token.flags & TokenFlag.USER_PIN_LOCKED),
        )

    @property
    def connection(self) -> Connection:
        """How this token is reached, for measures of it."""
        return self._connection

    def session(self) -> AbstractContextManager[None]:
        """Do all operations of the block under one login; others of this process wait.

        A device with room for one key at a time gets a login for each, with the same PIN.
        """
        return modules.LOCK if self._profile.one_key_per_login else self._connection.scope()

    def decrypting(self) -> Pkcs11OaepKeys:
        """Return the token's RSA keys that shares are sealed to, under this login."""
        return Pkcs11OaepKeys(self._connection, self._profile, self._uri)

    def wrapping(self) -> Pkcs11Wrapping:
        """Return the token's key-encryption keys, under this login."""
        return Pkcs11Wrapping(self._connection, self._profile, self._uri)

    def backups(self) -> Pkcs11Backups:
        """Return what takes keys out of this token and into it, under this login."""
        return Pkcs11Backups(self._connection, self._profile, self._uri)

    @contextmanager
    def looked_into(self) -> Iterator[tuple[pkcs11.Session, Profile]]:
        """Give a session that is logged in, and what is known of the device, to list objects."""
        with self._connection.login() as session:
            yield session, self._profile

    def random(self, size: int) -> bytes:
        """Draw ``size`` bytes by C_GenerateRandom; needs no login."""
        with self._connection.public() as session:
            drawn = bytes(session.generate_random(8 * size))
        if len(drawn) != size:
            raise Unavailable("the token returned too few random bytes", where=self._where)
        return drawn

    def keys(self) -> tuple[KeyInfo, ...]:
        """List the EC private keys whose public key is in the token too."""
        with self._connection.login() as session:
            return tuple(self._describe(found) for found in _search(session, {}))

    def find(
        self,
        role: KeyRole,
        *,
        label: str | None = None,
        id: bytes | None = None,
        key_id: KeyId | None = None,
    ) -> ec.EllipticCurvePrivateKey:
        """Find one key; see `Token.find`."""
        if id is None and key_id is None:
            # Whoever can write to the token can add a key with the same label.
            raise Refused(
                "a label alone does not identify a key",
                check="key.unpinned",
                where=self._where,
                hint="name the key by id= in its URI, or by the digest of its public key",
            )
        wanted = {Attribute.ID: id, Attribute.LABEL: label}
        with self._connection.login() as session:
            given = {name: value for name, value in wanted.items() if value is not None}
            found = self._one(_search(session, given), label=label, key_id=key_id)
            made_for = role_in(found.id)
            if made_for not in (None, role):
                raise Refused(
                    f"the key {found.label!r} was made for another role",
                    check="key.role",
                    where=self._where,
                )
            quirks = check_private(found.private, role, self._profile)
        return self._key(found, role, quirks)

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve, *, recoverable: bool = False
    ) -> TokenKey:
        """Make a key pair; see `Token.make`.  A key that fails its checks is destroyed again.

        A ``recoverable`` one can be backed up under a key that the token's SO trusts.
        """
        if curve.name not in PARAMETERS:
            raise Malformed(f"no role here uses the curve {curve.name}")
        check_label(label)
        # The role is in the id, where it can be read back: a CA key and a statement key have the
        # same attributes in every other respect.
        id_ = f"{role.value}-{secrets.token_hex(8)}".encode()
        with self._connection.login(writing=True) as session:
            self._check_offers(role)
            # Nobody can be asked at a token's own keys between two calls of one operation.
            always = signs_by_pin(role, self._profile) and not self._connection.pinpad
            template = private_template(
                role, label=label, id=id_, recoverable=recoverable, always_authenticate=always
            )
            public, private = _generate(session, role, template, curve, self._profile)
            try:
                quirks = check_private(private, role, self._profile, always_authenticate=always)
                quirks += check_public(public, role, self._profile)
                held = public_key_of(public)
                found = _Found(
                    private=private, id=id_, label=label, public=held, key_id=_digest(held)
                )
                key = self._key(found, role, quirks)
                _prove(key, role)
            except BaseException as error:
                if _left_behind(private, public) and isinstance(error, CustodyError):
                    error.hint = f"the key {label!r} stays in the token, which does not destroy it"
                raise
        return key

    def _check_offers(self, role: KeyRole) -> None:
        """Make no key for what the token does not do: an authority's could not be destroyed."""
        use = Mechanism.ECDH1_DERIVE if role.derives else Mechanism.ECDSA
        offered = self._connection.locate().slot.get_mechanisms()
        missing = [item.name for item in (Mechanism.EC_KEY_PAIR_GEN, use) if item not in offered]
        if missing:
            raise Unavailable(
                f"the token does not offer {' or '.join(missing)}",
                where=self._where,
                hint=f"custody token probe '{self._uri}'",
            )

    @property
    def _where(self) -> str:
        return self._connection.where

    def _one(self, found: tuple[_Found, ...], *, label: str | None, key_id: KeyId | None) -> _Found:
        named = "" if label is None else f" labelled {label!r}"
        if not found:
            raise Unavailable(f"no such key{named} is in the token", where=self._where)
        chosen = tuple(one for one in found if key_id in (None, one.key_id))
        if not chosen:
            others = ", ".join(f"{one.label!r} is {one.key_id[:16]}…" for one in found)
            raise Refused(
                f"the key{named} has another public key than {key_id}: {others}",
                check="key.public",
                where=self._where,
            )
        if len(chosen) > 1:
            raise Refused(f"{len(chosen)} keys match", check="key.ambiguous", where=self._where)
        return chosen[0]

    def _key(self, found: _Found, role: KeyRole, quirks: tuple[str, ...]) -> TokenKey:
        info = self._info_of(found, role, quirks)
        return TokenKey(
            self._connection, info, role=role, public=found.public, profile=self._profile
        )

    def _describe(self, found: _Found) -> KeyInfo:
        role = role_in(found.id)
        if role is None:
            return self._info_of(found, None, ())
        try:
            return self._info_of(found, role, check_private(found.private, role, self._profile))
        except Refused:
            return self._info_of(found, None, ())

    def _info_of(self, found: _Found, role: KeyRole | None, quirks: tuple[str, ...]) -> KeyInfo:
        return KeyInfo(
            id=found.id,
            label=found.label,
            key_id=found.key_id,
            spki=public_bytes(found.public),
            role=role,
            uri=replace(self._uri, id=found.id, object=found.label),
            quirks=quirks,
        )


def _generate(
    session: pkcs11.Session,
    role: KeyRole,
    private: Template,
    curve: ec.EllipticCurve,
    profile: Profile,
) -> tuple[Any, Any]:
    label, id_ = private[Attribute.LABEL], private[Attribute.ID]
    parameters = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS[curve.name]}, local=True
    )
    return parameters.generate_keypair(
        id=id_,
        label=label,
        store=True,
        capabilities=pkcs11.MechanismFlag(0),
        mechanism=Mechanism.EC_KEY_PAIR_GEN,
        public_template=asked(
            public_template(role, label=label, id=id_, curve=curve), "public", profile
        ),
        private_template=asked(private, "private", profile),
    )


def _left_behind(*items: Any) -> bool:
    """Destroy objects that serve nothing; say whether one of them stays."""
    stays = False
    for item in items:
        try:
            item.destroy()
        except pkcs11.PKCS11Error:
            stays = True
    return stays


def _search(session: pkcs11.Session, given: Mapping[Attribute, Any]) -> tuple[_Found, ...]:
    """List private keys with each public key stored under their id."""
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.EC, **given}
    found = []
    for private in list(session.get_objects(dict(wanted))):
        id_ = bytes(private[Attribute.ID])
        beside = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: id_}
        # Anyone who reaches the token can store public objects in it without a PIN, so one that
        # lies beside a private key is a claim about it, and a copy of the same one is no second.
        claims = {}
        for item in list(session.get_objects(beside)):
            with suppress(Malformed):
                public = public_key_of(item)
                claims[_digest(public)] = public
        found += [
            _Found(
                private=private,
                id=id_,
                label=str(private[Attribute.LABEL]),
                public=public,
                key_id=digest,
            )
            for digest, public in sorted(claims.items())
            if private[Attribute.EC_PARAMS] == PARAMETERS[public.curve.name]
        ]
    return tuple(found)


def _prove(key: TokenKey, role: KeyRole) -> None:
    """Check that the public key stored is the private key's (a pair-wise consistency test)."""
    if role.derives:
        ours = ec.generate_private_key(key.curve)
        good = key.exchange(ec.ECDH(), ours.public_key()) == ours.exchange(
            ec.ECDH(), key.public_key()
        )
    else:
        message, algorithm = os.urandom(32), ec.ECDSA(hashes.SHA256())
        try:
            key.public_key().verify(key.sign(message, algorithm), message, algorithm)
            good = True
        except InvalidSignature:
            good = False
    if not good:
        raise Refused("the token made a key pair that does not match", check="key.pair")


def _digest(public: ec.EllipticCurvePublicKey) -> KeyId:
    return digest_of(public_bytes(public))


def role_in(id_: bytes) -> KeyRole | None:
    """Return the role that a key's id says it was made for here, if any."""
    prefix = id_.partition(b"-")[0]
    return next((role for role in KeyRole if role.value.encode() == prefix), None)
