"""Key slots for tokens that only have RSA.  Protocol: docs/protocol.md section 3.7.

RSAES-OAEP (RFC 8017 section 7.1) of a fresh 32-byte key with an empty label, and the secret under
that key by AES-256-GCM.  The secret itself never goes into OAEP: a slot has one form whatever it
holds, and what binds it to its place is in the derivation, not in a label that tokens refuse.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Literal, Protocol, runtime_checkable

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from custody.crypto.bind import bind
from custody.crypto.secret import Octets, wipe
from custody.errors import Malformed, Refused

OaepSuite = Literal[
    "RSA2048_OAEP_SHA1", "RSA3072_OAEP_SHA1", "RSA2048_OAEP_SHA256", "RSA3072_OAEP_SHA256"
]

#: F4, the one exponent taken: FIPS 186-5 section A.1.1 has none smaller, and tokens none larger.
EXPONENT = 65537
KEY_BYTES = 32
_SALT_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16


class OaepParameters(msgspec.Struct, frozen=True):
    """What a suite fixes: the modulus's size and the hash of OAEP and of its mask alike."""

    modulus_bits: int
    digest: hashes.SHA1 | hashes.SHA256

    @property
    def padding(self) -> padding.OAEP:
        """The scheme as `cryptography` takes it."""
        return padding.OAEP(padding.MGF1(self.digest), self.digest, label=None)


# OAEP asks of its hash that it looks random, not that nobody finds collisions: SHA-1's are no
# way into it.  Tokens that know no other hash are therefore taken, by a name that says so.
_SHA1, _SHA256 = hashes.SHA1(), hashes.SHA256()  # noqa: S303
_SUITES: dict[str, OaepParameters] = {
    "RSA2048_OAEP_SHA1": OaepParameters(2048, _SHA1),
    "RSA3072_OAEP_SHA1": OaepParameters(3072, _SHA1),
    "RSA2048_OAEP_SHA256": OaepParameters(2048, _SHA256),
    "RSA3072_OAEP_SHA256": OaepParameters(3072, _SHA256),
}


@runtime_checkable
class ProvenKey(Protocol):
    """A key whose device is asked once more after bad padding: is it the bytes, or is it broken?

    That takes time.  So after a bad tag it is asked as well.
    """

    def prove(self, padding: AsymmetricPadding) -> None:
        """Check that the device decrypts what is encrypted to the public key."""


def parameters_of(suite: str) -> OaepParameters | None:
    """Return what an OAEP suite fixes; None for every other suite."""
    return _SUITES.get(suite)


def load_rsa_public(spki: bytes) -> rsa.RSAPublicKey:
    """Read a DER SubjectPublicKeyInfo of an RSA key (RFC 3279 section 2.3.1) that a suite takes.

    The modulus has exactly 2048 or 3072 bits and is odd, the exponent is 65537, and the bytes are
    the one DER form of it all; anything else is `Malformed`.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("not a DER public key") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise Malformed("not an RSA public key")
    numbers = key.public_numbers()
    if key.key_size not in {suite.modulus_bits for suite in _SUITES.values()}:
        raise Malformed(f"an RSA key of {key.key_size} bits is of no suite")
    if numbers.e != EXPONENT or numbers.n % 2 == 0:
        raise Malformed("an RSA key with another exponent than 65537, or an even modulus")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise Malformed("not the one DER form of its public key")
    return key


def seal_oaep(suite: OaepSuite, spki: bytes, plaintext: Octets, *, info: bytes) -> bytes:
    """Seal ``plaintext``: OAEP of a fresh key (as long as the modulus) ‖ salt ‖ ciphertext ‖ tag.

    Salt and tag have 32 and 16 bytes.  A key that is not the suite's is `Malformed`.
    """
    found = _SUITES[suite]
    public = load_rsa_public(spki)
    if public.key_size != found.modulus_bits:
        raise Malformed(f"the recipient has no key for {suite}")
    key = bytearray(os.urandom(KEY_BYTES))
    try:
        locked = public.encrypt(bytes(key), found.padding)
        salt = os.urandom(_SALT_BYTES)
        cipher, nonce = _message_key(key, salt, suite=suite, locked=locked, info=info)
        return locked + salt + cipher.encrypt(nonce, plaintext, None)
    finally:
        wipe(key)


def open_oaep(
    suite: OaepSuite, private_key: rsa.RSAPrivateKey, sealed: bytes, *, info: bytes
) -> bytes:
    """Open what `seal_oaep` made; a token is asked only for a whole slot, and once for a good one.

    A wrong key, hash, ``info`` or byte is `Refused`, all alike, in the same words and after the
    same work of the token: whoever can tell a bad padding from a bad tag can decrypt (Manger,
    CRYPTO 2001).  What a token itself raises (PIN locked, token gone) passes through.
    """
    found = _SUITES[suite]
    public = private_key.public_key()
    if public.key_size != found.modulus_bits:
        raise Refused(f"the key is no {suite} key", check="slot.open")
    size = found.modulus_bits // 8
    locked, salt = sealed[:size], sealed[size : size + _SALT_BYTES]
    body = sealed[size + _SALT_BYTES :]
    # A number that is no residue and a slot cut short are told here: what tokens answer to one
    # differs, and some of them have to be restarted after it.
    if len(body) >= _TAG_BYTES and int.from_bytes(locked, "big") < public.public_numbers().n:
        with suppress(ValueError):
            key = bytearray(private_key.decrypt(locked, found.padding))
            try:
                return _open_under(key, salt, body, suite=suite, locked=locked, info=info)
            except InvalidTag:
                if isinstance(private_key, ProvenKey):
                    private_key.prove(found.padding)
            finally:
                wipe(key)
    # Not chained to what went wrong: the words of the library would tell the two apart.
    raise Refused("the slot does not open with this key", check="slot.open")


def _open_under(
    key: bytearray, salt: bytes, body: bytes, *, suite: OaepSuite, locked: bytes, info: bytes
) -> bytes:
    if len(key) != KEY_BYTES:
        raise InvalidTag
    cipher, nonce = _message_key(key, salt, suite=suite, locked=locked, info=info)
    return cipher.decrypt(nonce, body, None)


def _message_key(
    key: Octets, salt: bytes, *, suite: OaepSuite, locked: bytes, info: bytes
) -> tuple[AESGCM, bytes]:
    bound = bind("oaep-slot", suite.encode(), info, locked)
    material = HKDF(hashes.SHA512(), length=KEY_BYTES + _NONCE_BYTES, salt=salt, info=bound).derive(
        bytes(key)
    )
    return AESGCM(material[:KEY_BYTES]), material[KEY_BYTES:]
