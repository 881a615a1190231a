"""The RSA key that others leave tokens under: made, sealed under a recovery seed, opened again.

Sealing is `keyslots.wrap` with the seed's bytes named ``rsa`` as key material, bound to the
recovery record and to the public half.  Documents: formats/keybackup.md, docs/protocol.md 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from custody.crypto.bind import bind
from custody.crypto.keyslots import unwrap, wrap
from custody.crypto.recoverykey import expand_seed
from custody.crypto.secret import Octets, wipe
from custody.errors import Malformed, Refused

RSA_BITS = 4096
_EXPONENT = 65537
_PURPOSE = "wrapping-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An RSA key: public half in the clear (DER), PKCS#8 sealed under a seed."""

    spki: bytes
    salt: bytes
    sealed: bytes = field(repr=False)


def make_wrapping_key(seed: Octets, record: bytes) -> Sealed:
    """Make an RSA-4096 key and seal its PKCS#8 under a recovery seed.

    ``record`` (32 bytes) is the digest of the recovery record.  What is in memory on the way the
    library keeps until it is reused.
    """
    key = rsa.generate_private_key(_EXPONENT, RSA_BITS)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    inner = bytearray(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    material = expand_seed(seed, "rsa", 32)
    try:
        salt, sealed = wrap(material, inner, C=_bound(record, spki), purpose=_PURPOSE)
    finally:
        wipe(inner, material)
    return Sealed(spki=spki, salt=salt, sealed=sealed)


@contextmanager
def opened(sealed: Sealed, seed: Octets, record: bytes) -> Iterator[rsa.RSAPrivateKey]:
    """Give the private key for the block; another seed or record is `Refused` (``wrap.open``).

    One whose public half is another than what stands beside it: `Refused` (``backup.wrapping``).
    """
    material = expand_seed(seed, "rsa", 32)
    try:
        inner = bytearray(
            unwrap(
                material,
                sealed.salt,
                sealed.sealed,
                C=_bound(record, sealed.spki),
                purpose=_PURPOSE,
            )
        )
    finally:
        wipe(material)
    try:
        key = serialization.load_der_private_key(bytes(inner), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused("what is sealed is no key", check="backup.wrapping") from error
    finally:
        wipe(inner)
    if not isinstance(key, rsa.RSAPrivateKey) or public_of(key) != sealed.spki:
        raise Refused("what is sealed is another key", check="backup.wrapping")
    yield key


def public_of(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half, DER."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_wrapping_public(spki: bytes) -> rsa.RSAPublicKey:
    """Read the public half: RSA with 4096 bits and exponent 65537, or `Malformed`."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("not a public key") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != RSA_BITS:
        raise Malformed(f"a wrapping key is RSA with {RSA_BITS} bits")
    if key.public_numbers().e != _EXPONENT:
        raise Malformed("a wrapping key has the exponent 65537")
    return key


def wrapping_proof(record: bytes, spki: bytes) -> bytes:
    """Return what a recovery key signs of a wrapping key (32 bytes)."""
    return bind("wrapping-proof", record, spki)


def _bound(record: bytes, spki: bytes) -> bytes:
    return bind("wrapping-key", record, spki)
