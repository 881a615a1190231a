"""What a device that signs digests is given to sign.  Source: FIPS 186-5 section 6.4.1."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

_BY_SIZE: dict[int, hashes.HashAlgorithm] = {
    32: hashes.SHA256(),
    48: hashes.SHA384(),
    64: hashes.SHA512(),
}


def digest_to_sign(
    data: bytes | bytearray | memoryview, algorithm: ec.EllipticCurveSignatureAlgorithm
) -> tuple[bytes, hashes.HashAlgorithm]:
    """Return the digest ECDSA signs, of ``data`` plain or prehashed, and its hash."""
    if not isinstance(algorithm, ec.ECDSA) or algorithm.deterministic_signing:
        raise UnsupportedAlgorithm("a device signs by ECDSA with its own random numbers")
    chosen = algorithm.algorithm
    if isinstance(chosen, Prehashed):
        if len(data) != chosen.digest_size:
            raise ValueError("the digest has the wrong length for its hash")
        # Prehashed keeps its hash to itself; the length tells SHA-256, -384 and -512 apart.
        if chosen.digest_size not in _BY_SIZE:
            raise UnsupportedAlgorithm("a device signs SHA-256, SHA-384 or SHA-512")
        return bytes(data), _BY_SIZE[chosen.digest_size]
    state = hashes.Hash(chosen)
    state.update(data)
    return state.finalize(), chosen
