"""Key-encryption keys in a PKCS#11 token.  PKCS#11 3.1 sections 5.18 and 6.13; RFC 3394, 5649.

C_UnwrapKey makes whatever its caller says out of what was wrapped.  So a KEK's template bounds what
may be made (CKA_UNWRAP_TEMPLATE) wherever the token's profile says that it minds one; there it is
tried at every use, because no token is known that reads it back.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto.bind import bind
from custody.crypto.secret import Octets
from custody.encoding import Digest
from custody.errors import Malformed, Refused, Unavailable
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import Template, check_secret, kek_template
from custody.keys.profiles import Profile
from custody.keys.uri import Pkcs11Uri
from custody.keys.wrapapi import RECOVERABLE_WRAP, SECRET_BYTES, KekInfo, WrapMechanism

#: What a KEK's check value is taken of.
CHECKED = hashlib.sha256(b"custody/v1/kek-check").digest()
#: What a KEK's id begins with.
KEK_PREFIX = b"kek-"
MAX_LABEL_CHARS = 64

_NO_USE = pkcs11.MechanismFlag(0)
_USES = ("ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE")

#: What a KEK unwraps: a secret for its caller's memory, good for nothing in the token.
UNWRAPPED: Mapping[Attribute, Any] = {
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
    **{Attribute[use]: False for use in _USES},
}


def full_kek_template(
    *, label: str, id: bytes, mechanism: Mechanism, recoverable: bool, profile: Profile
) -> Template:
    """Every attribute of a KEK, on a token of this profile."""
    fixed = dict(kek_template(label=label, id=id, mechanism=mechanism))
    del fixed[Attribute.MODIFIABLE]
    if recoverable:
        fixed |= {Attribute.EXTRACTABLE: True, Attribute.WRAP_WITH_TRUSTED: True}
    if bounds_unwrapping(profile):
        fixed[Attribute.UNWRAP_TEMPLATE] = dict(UNWRAPPED)
    # Last: SoftHSM fixes the object as soon as it reads it.
    return {**fixed, Attribute.MODIFIABLE: False}


def bounds_unwrapping(profile: Profile) -> bool:
    """Say whether tokens of this profile hold callers to CKA_UNWRAP_TEMPLATE."""
    return any(
        (known.id, known.answer) == ("enforces.unwrap-template", "yes")
        for known in profile.behaviour
    )


@dataclass(frozen=True, slots=True)
class Pkcs11Kek:
    """A `Kek` (custody.keys.wrapapi): looked up anew for every use."""

    connection: Connection
    info: KekInfo

    def wrap(self, secret: Octets) -> bytes:
        """Wrap 32 bytes; see `Kek.wrap`."""
        if len(secret) != SECRET_BYTES:
            raise Malformed(f"a key-encryption key wraps {SECRET_BYTES} bytes")
        with self.connection.login() as session:
            return wrap_secret(session, self._object(session), self._mechanism, secret)

    def unwrap(self, wrapped: bytes) -> bytearray:
        """Undo `wrap`; see `Kek.unwrap`."""
        if len(wrapped) != SECRET_BYTES + 8:
            raise Malformed(f"what a key-encryption key wrapped has {SECRET_BYTES + 8} bytes")
        with self.connection.login() as session:
            key = self._object(session)
            try:
                made = _unwrap(key, self._mechanism, wrapped, UNWRAPPED)
            except (pkcs11.GeneralError, pkcs11.WrappedKeyInvalid, pkcs11.FunctionFailed) as error:
                raise Refused(
                    "was not wrapped by this key, or was changed",
                    check="kek.unwrap",
                    where=f"{self.connection.where}, key {self.info.label}",
                ) from error
            try:
                value = bytearray(made[Attribute.VALUE])
            finally:
                made.destroy()
        # RFC 3394 has no length: a token that pads returns more than was wrapped.
        if len(value) != SECRET_BYTES:
            raise Refused("the token unwrapped another length", check="kek.unwrap")
        return value

    @property
    def _mechanism(self) -> Mechanism:
        return Mechanism[self.info.mechanism]

    def _object(self, session: pkcs11.Session) -> Any:
        found = list(session.get_objects(_named(id=self.info.id)))
        if len(found) != 1:
            raise Refused("is not there once", check="key.ambiguous", where=self.connection.where)
        if check_value(session, found[0], self._mechanism) != self.info.check:
            raise Refused("is another key", check="kek.check", where=self.connection.where)
        return found[0]


class Pkcs11Wrapping:
    """A `Wrapping` (custody.keys.wrapapi) of one opened token."""

    def __init__(self, connection: Connection, profile: Profile, uri: Pkcs11Uri) -> None:
        self._connection = connection
        self._profile = profile
        self._uri = uri

    def check_free(self, label: str) -> None:
        """Refuse a label that a key bears; see `Wrapping.check_free`."""
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}
        with self._connection.login() as session:
            if list(session.get_objects(wanted)):
                raise Refused(
                    f"a key labelled {label!r} is in the token already",
                    check="kek.exists",
                    where=self._connection.where,
                    hint="choose another label; a key-encryption key is not destroyed by its user",
                )

    def make_kek(self, label: str, *, recoverable: bool) -> Pkcs11Kek:
        """Make a KEK; see `Wrapping.make_kek`."""
        if not label or len(label) > MAX_LABEL_CHARS or not label.isprintable():
            raise Malformed(f"a key label has 1 to {MAX_LABEL_CHARS} printable characters")
        mechanism = self._offered(recoverable=recoverable)
        id_ = KEK_PREFIX + secrets.token_hex(8).encode()
        template = full_kek_template(
            label=label,
            id=id_,
            mechanism=mechanism,
            recoverable=recoverable,
            profile=self._profile,
        )
        with self._connection.login(writing=True) as session:
            # It cannot be destroyed again, so a throw-away one shows first that the token heeds
            # what it is told.
            passing: dict[Attribute, Any] = dict(template)
            passing |= {Attribute.TOKEN: False, Attribute.DESTROYABLE: True}
            fixed = passing.pop(Attribute.MODIFIABLE)
            trial = _generate(session, {**passing, Attribute.MODIFIABLE: fixed})
            try:
                check_kek(trial, self._profile, recoverable=recoverable, passing=True)
                self._check_bounds(session, trial, mechanism)
            finally:
                trial.destroy()
            made = _generate(session, template)
            return self._judged(session, made)

    def find_kek(
        self, *, label: str | None = None, id: bytes | None = None, check: Digest | None = None
    ) -> Pkcs11Kek:
        """Find one KEK; see `Wrapping.find_kek`."""
        if id is None and check is None:
            raise Refused(
                "a label alone does not identify a key",
                check="key.unpinned",
                where=self._connection.where,
                hint="name the key by id= in its URI, or by its check value",
            )
        with self._connection.login() as session:
            held = list(session.get_objects(_named(label=label, id=id)))
            found = [item for item in held if bytes(item[Attribute.ID]).startswith(KEK_PREFIX)]
            if not found:
                raise Unavailable("no such key is in the token", where=self._connection.where)
            # By its id one key is meant, and what is wrong with it is worth saying.
            judged = [self._judged(session, item) for item in found] if id else []
            judged = judged or list(self._sound(session, found))
            chosen = [kek for kek in judged if check in (None, kek.info.check)]
        if not chosen:
            raise Refused(
                f"no key-encryption key here has the check value {check}",
                check="kek.check",
                where=self._connection.where,
            )
        if len(chosen) > 1:
            raise Refused(
                f"{len(chosen)} keys match", check="key.ambiguous", where=self._connection.where
            )
        return chosen[0]

    def keks(self) -> tuple[KekInfo, ...]:
        """List the KEKs that are as they must be."""
        with self._connection.login() as session:
            held = list(session.get_objects(_named()))
            return tuple(kek.info for kek in self._sound(session, held))

    def _sound(self, session: pkcs11.Session, held: list[Any]) -> Iterator[Pkcs11Kek]:
        for item in held:
            if bytes(item[Attribute.ID]).startswith(KEK_PREFIX):
                try:
                    yield self._judged(session, item)
                except Refused:
                    continue

    def _judged(self, session: pkcs11.Session, item: Any) -> Pkcs11Kek:
        """Judge one object by its template, and say which KEK it is."""
        recoverable = item[Attribute.EXTRACTABLE] is True
        mechanism = check_kek(item, self._profile, recoverable=recoverable)
        self._check_bounds(session, item, mechanism)
        id_, label = bytes(item[Attribute.ID]), str(item[Attribute.LABEL])
        return Pkcs11Kek(
            self._connection,
            KekInfo(
                id=id_,
                label=label,
                check=check_value(session, item, mechanism),
                mechanism=cast("WrapMechanism", mechanism.name),
                recoverable=recoverable,
                restored=item[Attribute.LOCAL] is not True,
                uri=replace(self._uri, id=id_, object=label, type="secret-key"),
            ),
        )

    def _check_bounds(self, session: pkcs11.Session, key: Any, mechanism: Mechanism) -> None:
        """Refuse a KEK that makes a wrapping key out of a secret, where the profile says none does.

        That is Tookan's attack A5b: one blob brought in twice, for two uses.
        """
        if not bounds_unwrapping(self._profile):
            return
        blob = wrap_secret(session, key, mechanism, CHECKED)
        try:
            made = _unwrap(key, mechanism, blob, {**UNWRAPPED, Attribute.WRAP: True})
        except pkcs11.PKCS11Error:
            return
        made.destroy()
        raise Refused(
            "the key unwraps secrets for uses that its template does not allow",
            check="key.template",
            where=self._connection.where,
        )

    def _offered(self, *, recoverable: bool) -> Mechanism:
        offered = self._connection.locate().slot.get_mechanisms()
        for name in mechanisms_for(recoverable=recoverable):
            if Mechanism[name] in offered and Mechanism.AES_KEY_GEN in offered:
                return Mechanism[name]
        raise Unavailable(
            "the token does not offer AES key wrap"
            + " without padding, by which keys wrap that can be backed up" * recoverable,
            where=self._connection.where,
            hint=f"custody token probe '{self._uri}'",
        )


def mechanisms_for(*, recoverable: bool) -> tuple[WrapMechanism, ...]:
    """Return how a KEK may wrap, the best first."""
    return (RECOVERABLE_WRAP,) if recoverable else get_args(WrapMechanism)


def check_kek(key: Any, profile: Profile, *, recoverable: bool, passing: bool = False) -> Mechanism:
    """Compare a KEK with its template; return its one mechanism.

    A recoverable one may have come from a backup: then it is not LOCAL, and was readable by the
    token that it came from.  ``passing``: a session object, to be destroyed again.
    """
    allowed = key[Attribute.ALLOWED_MECHANISMS]
    names = mechanisms_for(recoverable=recoverable)
    mechanism = Mechanism[next((n for n in names if allowed == (Mechanism[n],)), names[0])]
    wanted = dict(kek_template(label="", id=b"", mechanism=mechanism))
    for name in (Attribute.CLASS, Attribute.LABEL, Attribute.ID):
        del wanted[name]
    if recoverable:
        wanted |= {
            Attribute.EXTRACTABLE: True,
            Attribute.WRAP_WITH_TRUSTED: True,
            Attribute.NEVER_EXTRACTABLE: False,
        }
    else:
        wanted |= {
            Attribute.LOCAL: True,
            Attribute.ALWAYS_SENSITIVE: True,
            Attribute.NEVER_EXTRACTABLE: True,
        }
    if passing:
        wanted |= {Attribute.TOKEN: False, Attribute.DESTROYABLE: True}
    check_secret(key, wanted, profile)
    return mechanism


def check_value(session: pkcs11.Session, key: Any, mechanism: Mechanism) -> Digest:
    """Return a KEK's check value, which tells it from every other and nothing of itself."""
    return bind("kek-check", wrap_secret(session, key, mechanism, CHECKED)).hex()


def wrap_secret(session: pkcs11.Session, key: Any, mechanism: Mechanism, secret: Octets) -> bytes:
    """Wrap a secret of the caller's, which is in the token only while it does so."""
    held = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: bytes(secret),
            **UNWRAPPED,
        }
    )
    try:
        return bytes(key.wrap_key(held, mechanism=mechanism))
    finally:
        held.destroy()


def _unwrap(key: Any, mechanism: Mechanism, wrapped: bytes, template: Template) -> Any:
    return key.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.GENERIC_SECRET,
        wrapped,
        mechanism=mechanism,
        capabilities=_NO_USE,
        template=dict(template),
    )


def _generate(session: pkcs11.Session, template: Template) -> Any:
    return session.generate_key(
        KeyType.AES,
        256,
        store=template[Attribute.TOKEN],
        capabilities=_NO_USE,
        template=dict(template),
    )


def _named(*, label: str | None = None, id: bytes | None = None) -> dict[Attribute, Any]:
    named: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
    }
    if label is not None:
        named[Attribute.LABEL] = label
    if id is not None:
        named[Attribute.ID] = id
    return named
