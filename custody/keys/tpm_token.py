"""A TPM as a person's token: persistent keys under the owner hierarchy, with the PIN as authValue.

A TPM stores no labels.  A key's id is its persistent handle, and the handle says its role.
Dictionary-attack protection applies (``noDA`` is clear), so wrong PINs lock the TPM as they lock
a smart card.  The PIN itself never crosses the bus at use: it keys an HMAC (part 1 section 19.6),
and when a key is made it is encrypted to the EK.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_RH, TPM2_ST
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_SENSITIVE_CREATE,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
)

from custody.crypto.signature import load_ec_public, public_bytes
from custody.encoding import KeyId
from custody.encoding import key_id as digest_of
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.evidence import Alg, Attributes, Curve, EccPublic, name, parse_public
from custody.formats.tpmpublic import STORAGE_TEMPLATE, matches
from custody.formats.tpmwire import sized
from custody.keys.api import KeyInfo, KeyRole, TokenInfo
from custody.keys.pin import Pin, PinReader
from custody.keys.prehash import digest_to_sign
from custody.keys.tpm_errors import RC_AUTH_FAIL, RC_BAD_AUTH, code
from custody.keys.tpm_key import TpmKey, shared_x, to_point
from custody.keys.tpm_session import Connection, Handle, Tpm, unmarshal
from custody.keys.uri import TpmUri

#: Persistent handles by role (owner range 81000000 to 8100ffff of the TCG handle registry).
_ROLE_HANDLES = {
    KeyRole.SIGN: range(0x81000C00, 0x81000C10),
    KeyRole.SHARE: range(0x81000C10, 0x81000C20),
    KeyRole.CA: range(0x81000C20, 0x81000C30),
    KeyRole.LOG: range(0x81000C30, 0x81000C40),
    KeyRole.SITE: range(0x81000C50, 0x81000C60),
}
#: An authValue is no longer than the key's name hash.
MAX_PIN_BYTES = 32

_CURVES = {"secp256r1": (Curve.P256, Alg.SHA256), "secp384r1": (Curve.P384, Alg.SHA384)}
_MADE_HERE = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.USER_WITH_AUTH
)

# Properties (TPM_PT, part 2 section 6.13).
_PT_MANUFACTURER = 0x105
_PT_VENDOR_STRINGS = range(0x106, 0x10A)
_PT_FIRMWARE = (0x10B, 0x10C)
_PT_PERMANENT = 0x200
_PT_LOCKOUT_COUNTER = 0x20E
_PT_MAX_AUTH_FAIL = 0x20F
_IN_LOCKOUT = 1 << 9


def key_template(role: KeyRole, curve: ec.EllipticCurve) -> EccPublic:
    """Return what a key of ``role`` must be, but for its point: one use, and only in this TPM."""
    if curve.name not in _CURVES:
        raise Malformed(f"a TPM key is not made on the curve {curve.name}")
    number, signing_hash = _CURVES[curve.name]
    return EccPublic(
        name_alg=Alg.SHA256,
        attributes=_MADE_HERE | (Attributes.DECRYPT if role.derives else Attributes.SIGN),
        signing_hash=None if role.derives else signing_hash,
        curve=number,
    )


class TpmToken:
    """A `Token` (custody.keys.api) in a TPM."""

    def __init__(self, uri: TpmUri, *, pin: PinReader | None) -> None:
        self._uri = replace(uri, pin_source=None)
        self._tpm = Tpm(uri.tcti)
        self._pin = Pin(uri.pin_source, pin, prompt=f"PIN of {self._uri}")
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<TpmToken {self._uri}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pin.wipe()

    @property
    def info(self) -> TokenInfo:
        """The TPM's description of itself, as it is now."""
        with self.connect("describe itself") as link:
            words = b"".join(_property(link, at).to_bytes(4, "big") for at in _PT_VENDOR_STRINGS)
            maker = _property(link, _PT_MANUFACTURER).to_bytes(4, "big")
            counted, most = _property(link, _PT_LOCKOUT_COUNTER), _property(link, _PT_MAX_AUTH_FAIL)
            ek = link.endorsement_key
            return TokenInfo(
                label="tpm",
                manufacturer=_words(maker),
                model=_words(words),
                # A TPM has no serial number; its EK is what makes it this one.
                serial=name(ek.public).hex()[4:20],
                firmware=".".join(f"{_property(link, at):08x}" for at in _PT_FIRMWARE),
                library="tpm2-tss",
                profile="tpm2",
                # What libtpms and the reference code call themselves in their vendor string.
                token_class="software" if "SW" in _words(words).split() else "self-asserted",
                pin_count_low=counted > 0,
                pin_final_try=counted == most - 1,
                pin_locked=bool(_property(link, _PT_PERMANENT) & _IN_LOCKOUT),
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep other threads of this process out for the block."""
        with self._lock:
            yield

    def random(self, size: int) -> bytes:
        """Draw ``size`` bytes by TPM2_GetRandom, encrypted on the bus."""
        drawn = b""
        with self.connect("draw random bytes") as link:
            session = link.salted_session()
            while len(drawn) < size:
                piece = bytes(link.esys.get_random(min(32, size - len(drawn)), session1=session))
                if not piece:
                    raise Unavailable("the TPM returned no random bytes", where=self._tpm.where)
                drawn += piece
        return drawn

    def keys(self) -> tuple[KeyInfo, ...]:
        """List the keys made here for a role."""
        with self.connect("list its keys") as link:
            return tuple(_info(link, number, self._uri) for number in _held(link))

    def find(
        self,
        role: KeyRole,
        *,
        label: str | None = None,
        id: bytes | None = None,
        key_id: KeyId | None = None,
    ) -> ec.EllipticCurvePrivateKey:
        """Find one key; see `Token.find`.  A TPM stores no labels, so ``label`` chooses nothing."""
        if id is None and self._uri.handle is not None:
            id = self._uri.handle.to_bytes(4, "big")
        if id is None and key_id is None:
            raise Refused(
                "a TPM alone does not identify a key",
                check="key.unpinned",
                where=self._tpm.where,
                hint="name the key by handle= in its URI, or by the digest of its public key",
            )
        named = [key for key in self.keys() if id in (None, key.id)]
        if not named:
            raise Unavailable("no such key is in the TPM", where=self._tpm.where)
        chosen = [key for key in named if key_id in (None, key.key_id)]
        if not chosen:
            raise Refused(
                f"the key has another public key than {key_id}",
                check="key.public",
                where=self._tpm.where,
            )
        if len(chosen) > 1:
            raise Refused(f"{len(chosen)} keys match", check="key.ambiguous", where=self._tpm.where)
        return self._key(chosen[0], role)

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve
    ) -> ec.EllipticCurvePrivateKey:
        """Make a key; see `Token.make`.  The label is not kept: a TPM has no place for it."""
        template = key_template(role, curve)
        auth_value = self._auth_value()
        with self.connect("make a key") as link:
            taken = _held(link)
            number = next((n for n in _ROLE_HANDLES[role] if n not in taken), None)
            if number is None:
                raise Unavailable(
                    f"the TPM has no room for another {role.value} key", where=self._tpm.where
                )
            made = create_key(link, template, auth_value)
            link.esys.evict_control(ESYS_TR.OWNER, made, number)
            info = _info(link, number, self._uri)
        return self._key(info, role)

    def decrypting(self) -> NoReturn:
        """Refuse: a TPM spoken to directly agrees, and needs no key that decrypts."""
        raise Unavailable(
            "share keys in a TPM are on a curve, not RSA",
            where=self._tpm.where,
            hint="take the suite P256 or P384",
        )

    @contextmanager
    def connect(self, doing: str) -> Iterator[Connection]:
        """Open a connection; other threads of this process wait."""
        with self._lock, self._tpm.connect(doing) as link:
            yield link

    @contextmanager
    def unlocked(self, doing: str, number: int) -> Iterator[tuple[Connection, Handle, Handle]]:
        """Give a connection, a key and the session that shows its PIN.

        A wrong PIN is not offered again.
        """
        # Asked before the TPM is held: a person takes his time.
        auth_value = self._auth_value()
        with self.connect(doing) as link:
            self._refuse_risk(link)
            handle = link.esys.tr_from_tpmpublic(number)
            link.esys.tr_set_auth(handle, auth_value)
            try:
                yield link, handle, link.salted_session()
            except TSS2_Exception as error:
                if code(error) not in (RC_AUTH_FAIL, RC_BAD_AUTH):
                    raise
                wrong = Refused("the PIN is wrong", check="token.pin", where=self._tpm.where)
                self._pin.spoil(wrong)
                raise wrong from error
            finally:
                link.esys.tr_set_auth(handle, bytes(MAX_PIN_BYTES))

    def _auth_value(self) -> bytes:
        pin = self._pin.read()
        if len(pin) > MAX_PIN_BYTES:
            raise Refused(
                f"a TPM takes PINs of up to {MAX_PIN_BYTES} bytes",
                check="token.pin",
                where=self._tpm.where,
            )
        return bytes(pin)

    def _refuse_risk(self, link: Connection) -> None:
        if _property(link, _PT_PERMANENT) & _IN_LOCKOUT:
            raise Refused(
                "the TPM is locked after too many wrong PINs",
                check="token.pin-locked",
                where=self._tpm.where,
                hint="it unlocks with time, or by whoever holds its lockout authorisation",
            )
        if _property(link, _PT_LOCKOUT_COUNTER) == _property(link, _PT_MAX_AUTH_FAIL) - 1:
            # As with a smart card: the program cannot know whether the next PIN is right.
            raise Refused(
                "one more wrong PIN would lock the TPM",
                check="token.pin-final-try",
                where=self._tpm.where,
                hint="wait until the TPM has forgotten a wrong try",
            )

    def _key(self, info: KeyInfo, role: KeyRole) -> TpmTokenKey:
        if info.role is None:
            raise Refused(
                "the key may do more than its role", check="key.template", where=str(info.uri)
            )
        if info.role is not role:
            raise Refused(
                "the key was made for another role", check="key.role", where=str(info.uri)
            )
        return TpmTokenKey(self, info)


class TpmTokenKey(TpmKey):
    """One key of a `TpmToken`.  Signing or deriving, never both."""

    def __init__(self, token: TpmToken, info: KeyInfo) -> None:
        super().__init__(load_ec_public(info.spki))
        self.info = info
        self._token = token
        self._number = int.from_bytes(info.id, "big")

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        """Hash on the host, sign with TPM2_Sign (part 3 section 20.2), return DER."""
        if self.info.role is not None and self.info.role.derives:
            raise Refused("a share key does not sign", check="key.role", where=str(self.info.uri))
        digest, chosen = digest_to_sign(data, signature_algorithm)
        if chosen.name != _CURVE_HASHES[self.curve.name]:
            raise UnsupportedAlgorithm(f"this TPM key signs with {_CURVE_HASHES[self.curve.name]}")
        # A NULL ticket: only a restricted key wants proof that the TPM hashed the message.
        ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        with self._token.unlocked("sign", self._number) as (link, handle, session):
            made = link.esys.sign(handle, digest, scheme, ticket, session1=session)
        pair = made.signature.ecdsa
        return encode_dss_signature(
            int.from_bytes(bytes(pair.signatureR), "big"),
            int.from_bytes(bytes(pair.signatureS), "big"),
        )

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Return the shared point's x coordinate (TPM2_ECDH_ZGen, part 3 section 14.5)."""
        if self.info.role is None or not self.info.role.derives:
            raise Refused(
                "a signing key opens no shares", check="key.role", where=str(self.info.uri)
            )
        point = to_point(peer_public_key, self._public)
        with self._token.unlocked("agree on a key", self._number) as (link, handle, session):
            return shared_x(link.esys.ecdh_zgen(handle, point, session1=session), self._public)


_CURVE_HASHES = {"secp256r1": hashes.SHA256.name, "secp384r1": hashes.SHA384.name}


def create_key(link: Connection, template: EccPublic, auth_value: bytes) -> Handle:
    """Make a key under the owner's storage key, and load it; it has no place in the TPM yet."""
    parent = link.keep(link.create_primary(ESYS_TR.OWNER, STORAGE_TEMPLATE.pack()))
    private, public, *_ = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=auth_value)),
        unmarshal(TPM2B_PUBLIC, sized(template.pack())),
        session1=link.salted_session(),
    )
    return link.keep(link.esys.load(parent, private, public))


def _held(link: Connection) -> tuple[int, ...]:
    first = min(numbers.start for numbers in _ROLE_HANDLES.values())
    return tuple(number for number in link.handles(first) if _role_at(number) is not None)


def _role_at(number: int) -> KeyRole | None:
    return next((role for role, numbers in _ROLE_HANDLES.items() if number in numbers), None)


def _info(link: Connection, number: int, uri: TpmUri) -> KeyInfo:
    packed = link.public(link.esys.tr_from_tpmpublic(number))
    public = parse_public(packed)
    role = _role_at(number)
    if not isinstance(public, EccPublic):
        raise Refused(
            f"the key at 0x{number:08x} is not an elliptic-curve key", check="key.template"
        )
    key = public.key()
    if role is not None and not matches(public, key_template(role, key.curve)):
        role = None
    spki = public_bytes(key)
    return KeyInfo(
        id=number.to_bytes(4, "big"),
        label=f"0x{number:08x}",
        key_id=digest_of(spki),
        spki=spki,
        role=role,
        uri=replace(uri, handle=number),
    )


def _property(link: Connection, number: int) -> int:
    _, found = link.esys.get_capability(TPM2_CAP.TPM_PROPERTIES, number, 1)
    listed: Any = found.data.tpmProperties
    return int(listed[0].value) if len(listed) and int(listed[0].property) == number else 0


def _words(raw: bytes) -> str:
    return "".join(chr(byte) for byte in raw if 0x20 <= byte < 0x7F).strip()
