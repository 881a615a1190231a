"""Fingerprints, by which a publisher finds the parts of a model again in another one.

They go by GMAC (NIST SP 800-38D), a universal hash where its key is drawn after the plaintext is
settled, and four times as fast as a digest.  Whoever has the key can make two plaintexts with one
fingerprint, so it stays in the publisher's home, and nobody else goes by it: what a wrong match
would cost is an update that its receiver refuses, by a digest, before anything is written.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from custody.crypto.secret import Octets

KEY_BYTES = 32
FINGERPRINT_BYTES = 16
#: One for all: nothing is encrypted, and no tag has to be unforgeable.
_NONCE = bytes(12)


def fingerprint(key: bytes, plaintext: Octets) -> bytes:
    """Return the fingerprint (16 bytes) of ``plaintext`` under a ``key`` of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError("a fingerprint's key has 32 bytes")
    return AESGCM(key).encrypt(_NONCE, b"", plaintext)
