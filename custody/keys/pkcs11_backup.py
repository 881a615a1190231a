"""Keys out of a PKCS#11 token under keys that its security officer trusts, and into another.

PKCS#11 3.1 section 5.18.3: a key with CKA_WRAP_WITH_TRUSTED leaves only under one with CKA_TRUSTED,
which only the security officer gives.  RSA-OAEP (RFC 8017 section 7.1) takes an AES key; an EC key
is longer than that, so it leaves under an AES key, the *carrier*, which leaves under the RSA key.
"""

from __future__ import annotations

from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.errors import Refused, Unavailable
from custody.formats.keybackup import (
    CarrierMechanism,
    HeldIn,
    KeyBackup,
    OaepHash,
)
from custody.keys import pkcs11_module as modules
from custody.keys.api import KeyInfo, KeyRole
from custody.keys.pin import PinReader
from custody.keys.pkcs11_attributes import attributes_of
from custody.keys.pkcs11_kek import check_kek
from custody.keys.pkcs11_restore import Pkcs11Restore
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import (
    check_private,
)
from custody.keys.pkcs11_trusted import (
    CARRIERS,
    by_oaep,
    carrier_of,
    carrier_search,
    carrier_template,
    held_to,
    the_one,
    trusted_rsa,
    trusted_search,
)
from custody.keys.profiles import Profile
from custody.keys.uri import Pkcs11Uri
from custody.keys.wrapapi import KekInfo, WrappedKey

_NO_USE = pkcs11.MechanismFlag(0)
#: What a token answers that makes no AES keys which its security officer trusts.
_NOT_MADE = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.TemplateInconsistent,
)


class Pkcs11Backups:
    """A `Backups` (custody.keys.wrapapi) of one opened token."""

    def __init__(self, connection: Connection, profile: Profile, uri: Pkcs11Uri) -> None:
        self._connection = connection
        self._profile = profile
        self._uri = uri

    # ── by the security officer ──────────────────────────────────────────────────────────────────

    def trust(self, spki: bytes, *, so_pin: PinReader) -> bool:
        """Have the SO trust a wrapping key; see `Backups.trust`."""
        template = trusted_rsa(spki)
        with self._connection.officer(so_pin) as session:
            if not list(session.get_objects(trusted_search(spki))):
                made = session.create_object(dict(template))
                held_to(made, template)
            if self._carrier(session, spki) is not None:
                return True
            mechanism = self._carrier_mechanism()
            if mechanism is None:
                return False
            carrier = carrier_template(spki, mechanism)
            try:
                made = session.generate_key(
                    KeyType.AES, 256, store=True, capabilities=_NO_USE, template=dict(carrier)
                )
            except _NOT_MADE:
                return False
            held_to(made, carrier)
            return True

    # ── out ──────────────────────────────────────────────────────────────────────────────────────

    def wrap_kek(self, kek: KekInfo, spki: bytes) -> WrappedKey:
        """Wrap a KEK; see `Backups.wrap_kek`."""
        if not kek.recoverable:
            raise self._never(kek.label)
        with self._connection.login() as session:
            key = the_one(session, ObjectClass.SECRET_KEY, kek.id, where=self._where)
            check_kek(key, self._profile, recoverable=True)
            wrapped, used = self._under_rsa(session, key, spki)
            return WrappedKey(
                role="kek",
                label=kek.label,
                id=kek.id,
                check=kek.check,
                spki=None,
                attributes=attributes_of(key, "kek"),
                oaep_hash=used,
                wrapped=wrapped,
                held_in=self._held_in(),
            )

    def wrap_authority(self, key: KeyInfo, spki: bytes) -> WrappedKey:
        """Wrap an authority's key; see `Backups.wrap_authority`."""
        with self._connection.login() as session:
            private = the_one(session, ObjectClass.PRIVATE_KEY, key.id, where=self._where)
            check_private(private, KeyRole.CA, self._profile)
            if private[Attribute.EXTRACTABLE] is not True:
                raise self._never(key.label)
            self._rsa(session, spki)
            carrier = self._carrier(session, spki)
            if carrier is None:
                raise Unavailable(
                    "this token has no AES key that its security officer trusts, and an "
                    "authority's key is too long to leave under RSA",
                    where=self._where,
                    hint="make a new authority in the next policy when this token is lost",
                )
            mechanism = carrier_of(carrier)
            carried = bytes(carrier.wrap_key(private, mechanism=Mechanism[mechanism]))
            wrapped, used = self._under_rsa(session, carrier, spki)
            return WrappedKey(
                role="ca",
                label=key.label,
                id=key.id,
                check=key.key_id,
                spki=key.spki,
                attributes=attributes_of(private, "ca"),
                oaep_hash=used,
                wrapped=wrapped,
                carrier=mechanism,
                carried=carried,
                held_in=self._held_in(),
            )

    def _under_rsa(self, session: Any, key: Any, spki: bytes) -> tuple[bytes, OaepHash]:
        used = self._oaep()
        return bytes(self._rsa(session, spki).wrap_key(key, **by_oaep(used))), used

    def _carrier(self, session: Any, spki: bytes) -> Any:
        """Return the trusted AES key beside a wrapping key, judged; None where there is none."""
        found = list(session.get_objects(carrier_search(spki)))
        for key in found:
            held_to(key, carrier_template(spki, carrier_of(key)))
        return found[0] if found else None

    def _rsa(self, session: Any, spki: bytes) -> Any:
        found = list(session.get_objects(trusted_search(spki)))
        if not found:
            raise Refused(
                "the token's security officer has not trusted this wrapping key",
                check="backup.untrusted",
                where=self._where,
                hint="custody custodian recovery trust-key",
            )
        held_to(found[0], trusted_rsa(spki))
        return found[0]

    # ── in ───────────────────────────────────────────────────────────────────────────────────────

    def check_new(self, backup: KeyBackup) -> None:
        """Refuse a key that is there, or not such a key; see `Backups.check_new`."""
        Pkcs11Restore(self._connection, self._profile).check_new(backup)

    def restore(self, backup: KeyBackup, private: rsa.RSAPrivateKey) -> None:
        """Bring a key back; see `Backups.restore`."""
        Pkcs11Restore(self._connection, self._profile).restore(backup, private)

    # ── words ────────────────────────────────────────────────────────────────────────────────────

    @property
    def _where(self) -> str:
        return self._connection.where

    def _never(self, label: str) -> Refused:
        return Refused(
            f"the key {label!r} was made so that it never leaves its token",
            check="backup.never",
            where=self._where,
            hint="make one with --recoverable and let it take this one's place",
        )

    def _held_in(self) -> HeldIn:
        token = self._connection.locate()
        return HeldIn(
            label=token.label,
            manufacturer=token.manufacturer_id,
            model=token.model,
            serial=modules.serial_of(token),
        )

    def _oaep(self) -> OaepHash:
        answers = {known.id: known.answer for known in self._profile.behaviour}
        for name in ("sha256", "sha384", "sha512"):
            if answers.get(f"oaep.{name}") == "yes":
                return name
        # OAEP does not rest on collisions being hard to find.
        return "sha1"

    def _carrier_mechanism(self) -> CarrierMechanism | None:
        offered = self._connection.locate().slot.get_mechanisms()
        return next((name for name in CARRIERS if Mechanism[name] in offered), None)
