"""Share keys of tokens that only have RSA: they decrypt by OAEP, and do nothing else.

PKCS#11 3.1 sections 6.1.3 (RSA private keys) and 6.1.8 (CKM_RSA_PKCS_OAEP).
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import pkcs11
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass

from custody.crypto.oaepslots import EXPONENT, OaepParameters, load_rsa_public
from custody.crypto.signature import public_bytes
from custody.encoding import KeyId
from custody.encoding import key_id as digest_of
from custody.errors import CustodyError, Malformed, Refused, Unavailable
from custody.keys import pkcs11_module as modules
from custody.keys.api import KeyInfo, KeyRole
from custody.keys.pkcs11_private import TokenPrivate
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import (
    Template,
    asked,
    check_asking,
    check_attributes,
    check_label,
    decrypts_by_pin,
)
from custody.keys.profiles import Profile
from custody.keys.uri import Pkcs11Uri

#: What an OAEP key's id begins with: its role, where it can be read back.
OAEP_PREFIX = b"oaep-"

_MECHANISMS: dict[str, tuple[Mechanism, MGF]] = {
    "sha1": (Mechanism.SHA_1, MGF.SHA1),
    "sha256": (Mechanism.SHA256, MGF.SHA256),
}
_PRIVATE: Template = {
    Attribute.KEY_TYPE: KeyType.RSA,
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.WRAP_WITH_TRUSTED: False,
    Attribute.SIGN: False,
    Attribute.SIGN_RECOVER: False,
    Attribute.DECRYPT: True,
    # A key that unwraps puts what is sealed to it into the token, under whatever template.
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
    Attribute.ALLOWED_MECHANISMS: (Mechanism.RSA_PKCS_OAEP,),
    Attribute.COPYABLE: False,
    Attribute.DESTROYABLE: True,
}
_PUBLIC: Template = {
    Attribute.KEY_TYPE: KeyType.RSA,
    Attribute.TOKEN: True,
    Attribute.PRIVATE: False,
    Attribute.VERIFY: False,
    Attribute.VERIFY_RECOVER: False,
    Attribute.ENCRYPT: True,
    Attribute.WRAP: False,
    Attribute.DERIVE: False,
    Attribute.COPYABLE: False,
    Attribute.DESTROYABLE: True,
}
_PUBLIC_MADE: Template = {**_PUBLIC, Attribute.MODIFIABLE: False}
_MADE: Template = {
    Attribute.LOCAL: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.MODIFIABLE: False,
}


def check_oaep(key: Any, profile: Profile, *, always_authenticate: bool = False) -> tuple[str, ...]:
    """Compare a private key with what opens OAEP slots; return the quirks that excuse it.

    A key that wants the PIN for each use is always taken; one just made to ``always_authenticate``
    must.  Raises `Refused` (``key.template``) naming the attributes nothing excuses.
    """
    quirks = check_attributes(key, {**_PRIVATE, **_MADE}, "private", profile)
    return quirks + check_asking(
        key, profile, made_so=always_authenticate, usual=decrypts_by_pin(profile)
    )


def rsa_public_of(item: Any) -> rsa.RSAPublicKey:
    """Read the public half off an RSA key object, its private one among them."""
    numbers = rsa.RSAPublicNumbers(
        int.from_bytes(item[Attribute.PUBLIC_EXPONENT], "big"),
        int.from_bytes(item[Attribute.MODULUS], "big"),
    )
    try:
        spki = public_bytes(numbers.public_key())
    except ValueError as error:
        raise Malformed("not an RSA key") from error
    return load_rsa_public(spki)


def _check_pair(private: rsa.RSAPublicKey, public: rsa.RSAPublicKey, bits: int) -> None:
    if private != public or public.key_size != bits:
        raise Refused("the token made another key pair than was asked for", check="key.pair")


class Pkcs11OaepKeys:
    """The OAEP keys of one token."""

    def __init__(self, connection: Connection, profile: Profile, uri: Pkcs11Uri) -> None:
        self._connection = connection
        self._profile = profile
        self._uri = uri

    def make(self, label: str, parameters: OaepParameters) -> OaepKey:
        """Make a key pair; see `OaepKeys.make`.  A key that fails its checks is destroyed again."""
        check_label(label)
        id_ = OAEP_PREFIX + secrets.token_hex(8).encode()
        with self._connection.login(writing=True) as session:
            self._check_offers()
            always = decrypts_by_pin(self._profile) and not self._connection.pinpad
            named = {Attribute.LABEL: label, Attribute.ID: id_}
            public, private = self._generate(
                session, named, parameters.modulus_bits, always_authenticate=always
            )
            try:
                quirks = check_oaep(private, self._profile, always_authenticate=always)
                quirks += check_attributes(public, _PUBLIC_MADE, "public", self._profile)
                key = self._key(private, label, quirks)
                _check_pair(key.public_key(), rsa_public_of(public), parameters.modulus_bits)
                key.prove(parameters.padding)
            except BaseException as error:
                if _stays(private, public) and isinstance(error, CustodyError):
                    error.hint = f"the key {label!r} stays in the token, which does not destroy it"
                raise
        return key

    def find(self, key_id: KeyId) -> OaepKey:
        """Find one key; see `OaepKeys.find`."""
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.RSA}
        found: list[tuple[Any, OaepKey]] = []
        with self._connection.login() as session:
            for item in list(session.get_objects(wanted)):
                with suppress(Malformed, pkcs11.AttributeTypeInvalid):
                    key = self._key(item, str(item[Attribute.LABEL]), ())
                    if key.info.key_id == key_id:
                        found.append((item, key))
            if not found:
                where = self._connection.where
                raise Unavailable("no such RSA key is in the token", where=where)
            if len(found) > 1:
                raise Refused(
                    f"{len(found)} keys match",
                    check="key.ambiguous",
                    where=self._connection.where,
                )
            ((item, key),) = found
            key.info = replace(key.info, quirks=check_oaep(item, self._profile))
        return key

    def _key(self, item: Any, label: str, quirks: tuple[str, ...]) -> OaepKey:
        public = rsa_public_of(item)
        spki = public_bytes(public)
        id_ = bytes(item[Attribute.ID])
        info = KeyInfo(
            id=id_,
            label=label,
            key_id=digest_of(spki),
            spki=spki,
            role=KeyRole.SHARE,
            uri=replace(self._uri, id=id_, object=label),
            quirks=quirks,
        )
        return OaepKey(self._connection, info, public)

    def _check_offers(self) -> None:
        needed = (Mechanism.RSA_PKCS_KEY_PAIR_GEN, Mechanism.RSA_PKCS_OAEP)
        offered = self._connection.locate().slot.get_mechanisms()
        missing = [item.name for item in needed if item not in offered]
        if missing:
            raise Unavailable(
                f"the token does not offer {' or '.join(missing)}",
                where=self._connection.where,
                hint=f"custody token probe '{self._uri}'",
            )

    def _generate(
        self, session: Any, named: Template, bits: int, *, always_authenticate: bool
    ) -> tuple[Any, Any]:
        public: Template = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            **named,
            Attribute.MODULUS_BITS: bits,
            Attribute.PUBLIC_EXPONENT: EXPONENT.to_bytes(3, "big"),
            **_PUBLIC,
            Attribute.MODIFIABLE: False,
        }
        private: Template = {
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            **named,
            **_PRIVATE,
            Attribute.ALWAYS_AUTHENTICATE: always_authenticate,
            # Last: SoftHSM fixes the object as soon as it reads it.
            Attribute.MODIFIABLE: False,
        }
        pair: tuple[Any, Any] = session.generate_keypair(
            KeyType.RSA,
            bits,
            id=named[Attribute.ID],
            label=named[Attribute.LABEL],
            store=True,
            capabilities=pkcs11.MechanismFlag(0),
            mechanism=Mechanism.RSA_PKCS_KEY_PAIR_GEN,
            public_template=asked(public, "public", self._profile),
            private_template=asked(private, "private", self._profile),
        )
        return pair


class OaepKey(TokenPrivate, rsa.RSAPrivateKey):
    """One RSA private key in a token, as ``cryptography`` sees it; it only decrypts OAEP."""

    def __init__(self, connection: Connection, info: KeyInfo, public: rsa.RSAPublicKey) -> None:
        self._connection = connection
        self._public = public
        self.info = info

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """Run C_Decrypt with CKM_RSA_PKCS_OAEP; what the key does not open is a ValueError.

        Tokens answer bad padding with CKR_GENERAL_ERROR, which is also their answer when they
        are broken.  So where one is given, the key is asked to open something of ours: if it
        does, what it was given before is at fault.
        """
        with self._connection.login() as session:
            answer = self._try(session, ciphertext, padding)
        if isinstance(answer, bytes):
            return answer
        self.prove(padding)
        raise ValueError("the key does not open this")

    def prove(self, padding: AsymmetricPadding) -> None:
        """Check that the token decrypts what is encrypted to its public key."""
        drawn = os.urandom(32)
        # Never in a session in which a decryption failed: some tokens still have it under way.
        with self._connection.login(writing=True) as session:
            answer = self._try(session, self._public.encrypt(drawn, padding), padding)
        if isinstance(answer, pkcs11.PKCS11Error):
            raise modules.explain(answer, where=self._where) from answer
        if answer != drawn:
            raise Refused("the token made a key pair that does not match", check="key.pair")

    def _try(
        self, session: Any, ciphertext: bytes, padding: AsymmetricPadding
    ) -> bytes | pkcs11.PKCS11Error:
        mechanism, mask = _MECHANISMS[_hash_of(padding)]
        key = self._object(session)
        try:
            with self._pin_again(key) as more:
                return bytes(
                    key.decrypt(
                        ciphertext,
                        mechanism=Mechanism.RSA_PKCS_OAEP,
                        mechanism_param=(mechanism, mask, None),
                        **more,
                    )
                )
        except _ITS_FAULT as error:
            return error

    def sign(self, *_: object, **__: object) -> NoReturn:
        """Refuse: a share key does not sign, whatever its token would let it do."""
        raise Refused("a share key does not sign", check="key.role", where=self._where)


#: What tokens answer to a ciphertext that is not for the key: PKCS#11 3.1 section 5.9.2, and what
#: SoftHSM 2.6.1 and tpm2-pkcs11 1.9.0 were seen to answer.
_ITS_FAULT = (
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.DataInvalid,
    pkcs11.DataLenRange,
    pkcs11.GeneralError,
    pkcs11.FunctionFailed,
)


def _hash_of(scheme: AsymmetricPadding) -> str:
    """Name the hash of a suite's OAEP, whose mask is by the same and whose label is empty."""
    if isinstance(scheme, padding.OAEP) and scheme.algorithm.name in _MECHANISMS:
        return scheme.algorithm.name
    raise TypeError("this key decrypts OAEP with SHA-1 or SHA-256, and nothing else")


def _stays(*items: Any) -> bool:
    """Destroy objects that serve nothing; say whether one of them stays."""
    stays = False
    for item in items:
        try:
            item.destroy()
        except pkcs11.PKCS11Error:
            stays = True
    return stays
