"""Key slots, wraps and share commitments.  Protocol: docs/protocol.md section 3.7.

A slot is one HPKE message (RFC 9180, base mode, single shot, empty AAD) to one recipient, or where
his token only has RSA one of `oaepslots`; a wrap is one AES-256-GCM message under a derived key.
All are bound to the manifest's core by its
digest ``C`` (32 bytes), so nothing copied into another manifest opens there.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Literal, NoReturn, TypeGuard, get_args

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from custody.crypto.bind import bind
from custody.crypto.oaepslots import (
    OaepSuite,
    load_rsa_public,
    open_oaep,
    parameters_of,
    seal_oaep,
)
from custody.crypto.secret import Octets
from custody.crypto.signature import load_ec_public
from custody.encoding import Digest, KeyId, key_id
from custody.errors import Malformed, Refused

#: What a key that agrees (ECDH) is sealed to by; a host's key and a recovery key are such.
HpkeSuite = Literal["P256", "P384", "MLKEM1024_P384"]
SuiteName = Literal[
    "RSA2048_OAEP_SHA1",
    "RSA3072_OAEP_SHA1",
    "RSA2048_OAEP_SHA256",
    "RSA3072_OAEP_SHA256",
    "P256",
    "P384",
    "MLKEM1024_P384",
]
#: The suites, weakest first.  A token that knows no hash but SHA-1 comes before every one that
#: does, whatever its key's size, so that a policy that names a SHA-256 suite takes no SHA-1.
STRENGTH: tuple[SuiteName, ...] = get_args(SuiteName)
#: A private key that opens slots, whatever device it lives in.
SlotKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
#: What a slot is for.
SlotPurpose = Literal["share", "contents", "site", "recovery"]

MLKEM_SEED_BYTES = 64
SALT_BYTES = 32

_KEY_BYTES = 32
_NONCE_BYTES = 12


class _Triple(msgspec.Struct, frozen=True):
    """A suite: KEM, KDF and AEAD are never chosen apart."""

    curve: str
    hybrid: bool
    hpke: hpke.Suite


_SUITES: dict[str, _Triple] = {
    "P256": _Triple(
        "secp256r1",
        False,
        hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    ),
    "P384": _Triple(
        "secp384r1",
        False,
        hpke.Suite(hpke.KEM.P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM),
    ),
    "MLKEM1024_P384": _Triple(
        "secp384r1",
        True,
        hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM),
    ),
}


def is_oaep(suite: SuiteName) -> TypeGuard[OaepSuite]:
    """Say whether a suite is for keys that only decrypt."""
    return suite in get_args(OaepSuite)


def is_hpke(suite: SuiteName) -> TypeGuard[HpkeSuite]:
    """Say whether a suite is for keys that agree."""
    return suite in get_args(HpkeSuite)


def curve_of(suite: HpkeSuite) -> str:
    """Return the curve of a suite's keys, as `cryptography` names it."""
    return _triple(suite).curve


def check_recipient(suite: SuiteName, spki: bytes, mlkem: bytes | None) -> None:
    """Raise `Malformed` unless these public keys, read strictly, are a recipient's of ``suite``."""
    found = parameters_of(suite)
    if found is not None:
        fits = load_rsa_public(spki).key_size == found.modulus_bits and mlkem is None
    else:
        triple = _triple(suite)
        fits = (load_ec_public(spki).curve.name, mlkem is not None) == (triple.curve, triple.hybrid)
    if not fits:
        raise Malformed(f"the recipient has no key for {suite}")


def recipient_id(spki: bytes, mlkem: bytes | None = None) -> KeyId:
    """Name a recipient: hex SHA-256 of the SPKI, or for a hybrid the digest of both public keys."""
    return key_id(spki) if mlkem is None else bind("hybrid-recipient", spki, mlkem).hex()


def seal(
    suite: SuiteName, spki: bytes, mlkem: bytes | None, plaintext: Octets, *, info: bytes
) -> bytes:
    """Seal ``plaintext`` to a public key: enc ‖ ciphertext ‖ tag, or as `seal_oaep` has it.

    ``mlkem`` is the raw ML-KEM-1024 public key (1568 bytes) of a hybrid recipient, else None.  A
    key that is not the suite's is `Malformed`.
    """
    check_recipient(suite, spki, mlkem)
    if is_oaep(suite):
        return seal_oaep(suite, spki, plaintext, info=info)
    triple = _triple(suite)
    classical = load_ec_public(spki)
    if mlkem is None:
        return triple.hpke.encrypt(plaintext, classical, info=info)
    recipient = hpke.MLKEM1024P384PublicKey(_mlkem_public(mlkem), classical)
    return triple.hpke.encrypt(plaintext, recipient, info=info)


def open(
    suite: SuiteName,
    private_key: SlotKey,
    mlkem_private: bytes | None,
    sealed: bytes,
    *,
    info: bytes,
) -> bytes:
    """Open what `seal` made; ``private_key`` may live in a token, which is asked once.

    ``mlkem_private`` is the 64-byte ML-KEM seed of a hybrid recipient, else None.  A wrong key,
    wrong ``info`` or changed byte is `Refused`, all alike; what the token itself raises (PIN
    locked, token gone) passes through.
    """
    if is_oaep(suite):
        if not isinstance(private_key, rsa.RSAPrivateKey) or mlkem_private is not None:
            raise Refused(f"the key is no {suite} key", check="slot.open")
        return open_oaep(suite, private_key, sealed, info=info)
    triple = _triple(suite)
    if (
        isinstance(private_key, rsa.RSAPrivateKey)
        or private_key.curve.name != triple.curve
        or (mlkem_private is not None) != triple.hybrid
    ):
        raise Refused(f"the key is no {suite} key", check="slot.open")
    watched = _Watched(private_key)
    try:
        if mlkem_private is None:
            return triple.hpke.decrypt(sealed, watched, info=info)
        pair = hpke.MLKEM1024P384PrivateKey(_mlkem_private(mlkem_private), watched)
        return triple.hpke.decrypt(sealed, pair, info=info)
    except InvalidTag as error:
        fault = watched.fault
        if fault is None:
            raise Refused("the slot does not open with this key", check="slot.open") from error
    raise fault


def slot_info(C: bytes, purpose: SlotPurpose, leaf_path: str, recipient: KeyId) -> bytes:
    """Bind a slot to its manifest, purpose, leaf ("" where there is none) and recipient.

    ``recipient`` is what `recipient_id` returns.
    """
    return bind("slot", C, purpose.encode(), leaf_path.encode(), bytes.fromhex(recipient))


def approval_info(request: Digest, leaf_path: str, officer: KeyId) -> bytes:
    """Bind a share sealed to a host to its request (statement digest), leaf and officer (SPKI)."""
    return bind("approval", bytes.fromhex(request), leaf_path.encode(), bytes.fromhex(officer))


def commitment(C: bytes, leaf_path: str, x: int, share: Octets, salt: Octets) -> bytes:
    """Commit to a leaf's share (32 bytes), so that a bad one is found, and named, on arrival."""
    return bind("share", C, leaf_path.encode(), bytes([x]), bytes(share), bytes(salt))


def wrap(ikm: Octets, plaintext: Octets, *, C: bytes, purpose: str) -> tuple[bytes, bytes]:
    """Wrap a secret under ``ikm``: a fresh salt (32 bytes), and ciphertext ‖ tag.

    key ‖ nonce = HKDF-SHA512(ikm, salt, ``bind("wrap", C, purpose)``, 44); AES-256-GCM, empty AAD.
    """
    salt = os.urandom(SALT_BYTES)
    cipher, nonce = _wrap_key(ikm, salt, bind("wrap", C, purpose.encode()))
    return salt, cipher.encrypt(nonce, plaintext, None)


def unwrap(ikm: Octets, salt: bytes, sealed: bytes, *, C: bytes, purpose: str) -> bytes:
    """Undo `wrap`; a wrong key, salt, core or purpose and a changed byte are `Refused`."""
    cipher, nonce = _wrap_key(ikm, salt, bind("wrap", C, purpose.encode()))
    try:
        return cipher.decrypt(nonce, sealed, None)
    except InvalidTag as error:
        raise Refused("the wrapped key does not open", check="wrap.open") from error


def _wrap_key(ikm: Octets, salt: bytes, info: bytes) -> tuple[AESGCM, bytes]:
    if len(salt) != SALT_BYTES:
        raise Malformed("the salt of a wrapped key has 32 bytes")
    length = _KEY_BYTES + _NONCE_BYTES
    material = HKDF(hashes.SHA512(), length=length, salt=salt, info=info).derive(ikm)
    return AESGCM(material[:_KEY_BYTES]), material[_KEY_BYTES:]


def _triple(suite: str) -> _Triple:
    try:
        return _SUITES[suite]
    except KeyError as error:
        raise Malformed("not a suite of the protocol") from error


def _mlkem_public(raw: bytes) -> mlkem.MLKEM1024PublicKey:
    try:
        return mlkem.MLKEM1024PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise Malformed("not an ML-KEM-1024 public key") from error


def _mlkem_private(seed: bytes) -> mlkem.MLKEM1024PrivateKey:
    try:
        return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed)
    except ValueError as error:
        raise Malformed("not an ML-KEM-1024 seed of 64 bytes") from error


class _Watched(ec.EllipticCurvePrivateKey):
    """A key that remembers what its token raised.

    The library reports every failed exchange as a wrong tag.  An officer whose token was pulled
    out, whose PIN is locked or who pressed ^C would be told that his share was corrupted, and the
    publisher would be blamed.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.fault: BaseException | None = None

    def __enter__(self) -> None:
        self.fault = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # ValueError is a point that the key refuses: there the sealed bytes are at fault.
        if not isinstance(error, ValueError):
            self.fault = error

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        with self:
            return self._key.exchange(algorithm, peer_public_key)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def sign(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this key only opens slots")

    # The interface asks for all of these; each is something that a slot has no use for.
    private_numbers = private_bytes = __copy__ = __deepcopy__ = sign
