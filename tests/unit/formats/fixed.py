"""Cryptography without chance, for examples that come out the same every time.

Keys are derived from words, ECDSA draws its k from key and message (RFC 6979), and HPKE (RFC 9180,
base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) is spelled out here with a given
ephemeral key, which no library offers and nothing but an example may do.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from custody.crypto.keyslots import _wrap_key
from custody.crypto.signature import load_ec_public, public_bytes

_KEM = b"KEM" + bytes.fromhex("0010")
_SUITE = b"HPKE" + bytes.fromhex("001000010002")


def octets(words: str, size: int = 32) -> bytes:
    """Return up to 32 bytes that stand for ``words``."""
    return hashlib.sha256(f"custody example: {words}".encode()).digest()[:size]


def key(words: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key whose private scalar is SHA-256 of ``custody example: WORDS``."""
    return ec.derive_private_key(int.from_bytes(octets(words), "big"), ec.SECP256R1())


def spki(words: str) -> bytes:
    """Return the public half of a key, DER."""
    return public_bytes(key(words).public_key())


def sign(words: str, message: bytes) -> bytes:
    """Sign with a key: DER, low s, the same every time."""
    made = key(words).sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(made)
    order = ec.SECP256R1().group_order
    return encode_dss_signature(r, min(s, order - s))


def wrap(ikm: bytes, secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Wrap a secret as `custody.crypto.keyslots.wrap` does, with a given salt."""
    cipher, nonce = _wrap_key(ikm, salt, info)
    return cipher.encrypt(nonce, secret, None)


def seal(recipient: bytes, plaintext: bytes, *, info: bytes, ephemeral: str) -> bytes:
    """Seal to a P-256 SPKI as RFC 9180 has it, empty AAD: enc ‖ ciphertext ‖ tag."""
    public = load_ec_public(recipient)
    enc = _point(key(ephemeral).public_key())
    dh = key(ephemeral).exchange(ec.ECDH(), public)
    prk = _extract(_KEM, b"", b"eae_prk", dh)
    shared = _expand(_KEM, prk, b"shared_secret", enc + _point(public), 32)
    context = b"\0" + _extract(_SUITE, b"", b"psk_id_hash", b"")
    context += _extract(_SUITE, b"", b"info_hash", info)
    secret = _extract(_SUITE, shared, b"secret", b"")
    nonce = _expand(_SUITE, secret, b"base_nonce", context, 12)
    return enc + AESGCM(_expand(_SUITE, secret, b"key", context, 32)).encrypt(
        nonce, plaintext, None
    )


def _point(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labelled + b"\1", "sha256")[:size]
