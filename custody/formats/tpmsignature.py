"""Signatures a TPM makes (TPMT_SIGNATURE), and checking an attestation's.

Source: TPM 2.0 part 2 section 11.3.  Format: evidence.md, "Signatures".
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from custody.errors import Refused
from custody.formats.tpmpublic import EccPublic, RsaPublic, parse_public
from custody.formats.tpmwire import HASHES, Alg, Reader, sized, u16


class EcdsaSignature(msgspec.Struct, frozen=True, kw_only=True):
    """TPMT_SIGNATURE by ECDSA, both halves as long as the curve's coordinates."""

    hash_alg: Alg
    r: bytes
    s: bytes

    def pack(self) -> bytes:
        """Write the TPMT_SIGNATURE."""
        return u16(Alg.ECDSA) + u16(self.hash_alg) + sized(self.r) + sized(self.s)


class RsaSignature(msgspec.Struct, frozen=True, kw_only=True):
    """TPMT_SIGNATURE by RSASSA (PKCS #1 v1.5)."""

    hash_alg: Alg
    value: bytes

    def pack(self) -> bytes:
        """Write the TPMT_SIGNATURE."""
        return u16(Alg.RSASSA) + u16(self.hash_alg) + sized(self.value)


def parse_signature(data: bytes) -> EcdsaSignature | RsaSignature:
    """Read a TPMT_SIGNATURE by ECDSA or RSASSA; anything else is `Malformed`."""
    reader = Reader(data, what="TPMT_SIGNATURE")
    scheme = reader.alg((Alg.ECDSA, Alg.RSASSA), field="sigAlg")
    hash_alg = reader.alg(HASHES, field="hash")
    signature: EcdsaSignature | RsaSignature
    if scheme is Alg.ECDSA:
        r = reader.sized(lengths=(32, 48), field="signatureR")
        signature = EcdsaSignature(
            hash_alg=hash_alg, r=r, s=reader.sized(lengths=(len(r),), field="signatureS")
        )
    else:
        value = reader.sized(lengths=(256, 384, 512), field="sig")
        signature = RsaSignature(hash_alg=hash_alg, value=value)
    reader.finish()
    return signature


_HASHES = {Alg.SHA256: hashes.SHA256(), Alg.SHA384: hashes.SHA384(), Alg.SHA512: hashes.SHA512()}


def low_s(r: bytes, s: bytes, *, hash_alg: Alg, curve: ec.EllipticCurve) -> EcdsaSignature:
    """Return a TPM's ECDSA signature in the one form that is read: padded, with the low s."""
    size = (curve.key_size + 7) // 8
    value = int.from_bytes(s, "big")
    return EcdsaSignature(
        hash_alg=hash_alg,
        r=int.from_bytes(r, "big").to_bytes(size, "big"),
        s=min(value, curve.group_order - value).to_bytes(size, "big"),
    )


def verify_attest(ak_public: bytes, attest: bytes, signature: bytes) -> None:
    """Check the AK's signature over the exact bytes of ``attest``.

    Raises `Refused`: ``attestation.V12`` when scheme or hash are not the AK's own, otherwise
    ``attestation.V20``.
    """
    ak = parse_public(ak_public)
    given = parse_signature(signature)
    if given.hash_alg is not ak.signing_hash:
        raise Refused("the signature's hash is not the AK's", check="attestation.V12")
    try:
        match ak, given:
            case EccPublic(), EcdsaSignature():
                _verify_ecdsa(ak, attest, given)
            case RsaPublic(), RsaSignature():
                chosen = _HASHES[given.hash_alg]
                ak.key().verify(given.value, attest, padding.PKCS1v15(), chosen)
            case _:
                raise Refused("the signature's scheme is not the AK's", check="attestation.V12")
    except InvalidSignature as error:
        raise Refused("the AK did not sign this attestation", check="attestation.V20") from error


def _verify_ecdsa(ak: EccPublic, attest: bytes, given: EcdsaSignature) -> None:
    r, s = int.from_bytes(given.r, "big"), int.from_bytes(given.s, "big")
    key = ak.key()
    # The other s would do as well, and would make two files of one statement.
    if len(given.r) != ak.curve.coordinate_bytes or s > key.curve.group_order // 2:
        raise Refused(
            "the AK's signature is not in its one form (padded, low s)", check="attestation.V20"
        )
    key.verify(encode_dss_signature(r, s), attest, ec.ECDSA(_HASHES[given.hash_alg]))
