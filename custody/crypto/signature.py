"""ECDSA as this project writes and reads it: FIPS 186-5, one hash per curve, strict DER, low s.

Protocol: docs/protocol.md section 1.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from custody.errors import Malformed, Refused

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def load_ec_public(spki: bytes) -> ec.EllipticCurvePublicKey:
    """Read a DER SubjectPublicKeyInfo of a named P-256, P-384 or P-521 key (RFC 5480).

    Anything that would not be written back to the same bytes (compressed points, explicit
    parameters, BER, trailing bytes) is `Malformed`: a key must have exactly one digest.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("not a DER public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise Malformed("not a P-256, P-384 or P-521 public key")
    if public_bytes(key) != spki:
        raise Malformed("not the one DER form of its public key")
    return key


def public_bytes(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """Write a public key in its one form, as `load_ec_public` and `load_rsa_public` read it."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign ``message``: DER, low s, hash by curve.  ``key`` may live in a token.

    The signature is verified before it is returned.
    """
    public = key.public_key()
    produced = key.sign(message, ec.ECDSA(_hash_of(public)))
    try:
        r, s = decode_dss_signature(produced)
    except ValueError as error:
        raise Refused("the key returned no DER signature", check="signature") from error
    order = public.curve.group_order
    signature = encode_dss_signature(r, min(s, order - s))
    # A token that faults, or signs with another key than the one it was named by, is found here
    # and not by the first stranger who verifies.
    _verify(public, message, signature)
    return signature


def verify(spki: bytes, message: bytes, signature: bytes) -> None:
    """Refuse unless ``signature`` is strict DER with low s and right for ``message``."""
    public = load_ec_public(spki)
    # (r, n-s) verifies wherever (r, s) does, and anyone can compute it: accepting one form only
    # keeps a signed file from having two valid encodings.
    if _strict_s(public, signature) > public.curve.group_order // 2:
        raise Refused("the signature has a high s", check="signature")
    _verify(public, message, signature)


def verify_foreign(spki: bytes, message: bytes, signature: bytes) -> None:
    """As `verify`, for signatures made by other tools (`model.sig`): either s is accepted."""
    public = load_ec_public(spki)
    _strict_s(public, signature)
    _verify(public, message, signature)


def _hash_of(public: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    try:
        return _HASHES[public.curve.name]
    except KeyError as error:
        raise Malformed("not a P-256, P-384 or P-521 key") from error


def _strict_s(public: ec.EllipticCurvePublicKey, signature: bytes) -> int:
    try:
        r, s = decode_dss_signature(signature)
    except ValueError as error:
        raise Refused("the signature is not DER", check="signature") from error
    if not (0 < r < public.curve.group_order and 0 < s < public.curve.group_order):
        raise Refused("the signature is out of range", check="signature")
    # The library reads DER alone today; that there is one encoding must not rest on it.
    if encode_dss_signature(r, s) != signature:
        raise Refused("the signature is not strict DER", check="signature")
    return s


def _verify(public: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> None:
    try:
        public.verify(signature, message, ec.ECDSA(_hash_of(public)))
    except InvalidSignature as error:
        raise Refused("the signature is wrong", check="signature") from error
