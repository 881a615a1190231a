"""Public areas of TPM keys (TPMT_PUBLIC), their Names, and the templates that are expected.

Source: TPM 2.0 part 2 section 12.2 and part 1 section 16.  Endorsement keys are in tpmek.
Format: evidence.md, "Public areas".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import STRICT, IntFlag

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from custody.errors import Malformed
from custody.formats.tpmwire import (
    HASHES,
    Alg,
    Curve,
    Reader,
    digest,
    digest_bytes,
    sized,
    u16,
    u32,
)

#: Handles of the hierarchies, which stand for a primary key's parent (part 2 section 7.4).
RH_NULL = 0x40000007
RH_ENDORSEMENT = 0x4000000B


class Attributes(IntFlag, boundary=STRICT):
    """What a key may do (TPMA_OBJECT, part 2 section 8.3).  Reserved bits are not read."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


_MADE_HERE = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class EccPublic:
    """TPMT_PUBLIC of an elliptic-curve key.  ``symmetric_bits``: AES-CFB of a storage key."""

    name_alg: Alg
    attributes: Attributes
    auth_policy: bytes = b""
    symmetric_bits: int | None = None
    signing_hash: Alg | None = None
    curve: Curve
    x: bytes = b""
    y: bytes = b""

    def pack(self) -> bytes:
        """Write the TPMT_PUBLIC.  With an empty point it is a template for TPM2_CreatePrimary."""
        return (
            _pack_head(Alg.ECC, self)
            + _pack_scheme(Alg.ECDSA, self.signing_hash)
            + u16(self.curve)
            + u16(Alg.NULL)
            + sized(self.x)
            + sized(self.y)
        )

    def key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key; a point off the curve is `Malformed`."""
        curve = ec.SECP256R1() if self.curve is Curve.P256 else ec.SECP384R1()
        x, y = int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big")
        try:
            return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        except ValueError as error:
            raise Malformed("TPMT_PUBLIC: the point is not on its curve") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaPublic:
    """TPMT_PUBLIC of an RSA key with the exponent 65537."""

    name_alg: Alg
    attributes: Attributes
    auth_policy: bytes = b""
    symmetric_bits: int | None = None
    signing_hash: Alg | None = None
    bits: int
    modulus: bytes = b""

    def pack(self) -> bytes:
        """Write the TPMT_PUBLIC."""
        return (
            _pack_head(Alg.RSA, self)
            + _pack_scheme(Alg.RSASSA, self.signing_hash)
            + u16(self.bits)
            + u32(0)
            + sized(self.modulus)
        )

    def key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        try:
            return rsa.RSAPublicNumbers(65537, int.from_bytes(self.modulus, "big")).public_key()
        except ValueError as error:
            raise Malformed("TPMT_PUBLIC: not an RSA modulus") from error


Public = EccPublic | RsaPublic


def _pack_head(kind: Alg, public: Public) -> bytes:
    symmetric = (
        u16(Alg.NULL)
        if public.symmetric_bits is None
        else u16(Alg.AES) + u16(public.symmetric_bits) + u16(Alg.CFB)
    )
    return (
        u16(kind)
        + u16(public.name_alg)
        + u32(public.attributes)
        + sized(public.auth_policy)
        + symmetric
    )


def _pack_scheme(scheme: Alg, signing_hash: Alg | None) -> bytes:
    return u16(Alg.NULL) if signing_hash is None else u16(scheme) + u16(signing_hash)


def parse_public(data: bytes) -> Public:
    """Read a TPMT_PUBLIC of an ECC or RSA key; anything else is `Malformed`."""
    reader = Reader(data, what="TPMT_PUBLIC")
    kind = reader.alg((Alg.ECC, Alg.RSA), field="type")
    name_alg = reader.alg(HASHES, field="nameAlg")
    attributes = _read_attributes(reader)
    auth_policy = reader.sized(lengths=(0, digest_bytes(name_alg)), field="authPolicy")
    symmetric_bits = _read_symmetric(reader)
    public: Public
    if kind is Alg.ECC:
        signing_hash = _read_scheme(reader, Alg.ECDSA)
        curve = _read_curve(reader)
        reader.alg((Alg.NULL,), field="kdf")
        lengths = tuple(range(1, curve.coordinate_bytes + 1))
        public = EccPublic(
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=auth_policy,
            symmetric_bits=symmetric_bits,
            signing_hash=signing_hash,
            curve=curve,
            x=reader.sized(lengths=lengths, field="unique.x"),
            y=reader.sized(lengths=lengths, field="unique.y"),
        )
    else:
        signing_hash = _read_scheme(reader, Alg.RSASSA)
        bits = reader.uint(2)
        if bits not in (2048, 3072, 4096):
            raise reader.fail(f"an RSA key of {bits} bits")
        reader.constant(0, 4, field="exponent")
        public = RsaPublic(
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=auth_policy,
            symmetric_bits=symmetric_bits,
            signing_hash=signing_hash,
            bits=bits,
            modulus=reader.sized(lengths=(bits // 8,), field="unique"),
        )
    reader.finish()
    public.key()
    return public


def _read_attributes(reader: Reader) -> Attributes:
    value = reader.uint(4)
    try:
        return Attributes(value)
    except ValueError as error:
        raise reader.fail(f"objectAttributes 0x{value:08x} has a reserved bit set") from error


def _read_curve(reader: Reader) -> Curve:
    value = reader.uint(2)
    try:
        return Curve(value)
    except ValueError as error:
        raise reader.fail(f"curve 0x{value:04x} is not P-256 or P-384") from error


def _read_symmetric(reader: Reader) -> int | None:
    if reader.alg((Alg.NULL, Alg.AES), field="symmetric") is Alg.NULL:
        return None
    bits = reader.uint(2)
    if bits not in (128, 192, 256):
        raise reader.fail(f"AES with {bits} bits")
    reader.alg((Alg.CFB,), field="symmetric mode")
    return bits


def _read_scheme(reader: Reader, scheme: Alg) -> Alg | None:
    if reader.alg((Alg.NULL, scheme), field="scheme") is Alg.NULL:
        return None
    return reader.alg(HASHES, field="scheme hash")


def name(public: bytes) -> bytes:
    """Return the Name of a key: nameAlg and the digest of its public area (part 1 section 16)."""
    alg = parse_public(public).name_alg
    return u16(alg) + digest(alg, public)


def qualified_name(parent: int | bytes, own: bytes) -> bytes:
    """Return the Qualified Name of a key (part 1 section 16).

    ``parent`` is the parent's Qualified Name, or for a primary key the handle of its hierarchy
    (`RH_ENDORSEMENT`, `RH_NULL`): so the name proves where a key lives.
    """
    above = u32(parent) if isinstance(parent, int) else parent
    alg = Reader(sized(own), what="TPM2B_NAME").name(field="name")[:2]
    return alg + digest(Alg(int.from_bytes(alg, "big")), above + own)


def spki(public: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of the key in a TPMT_PUBLIC."""
    key = parse_public(public).key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def matches(public: Public, template: Public) -> bool:
    """Say whether ``public`` is exactly ``template`` with a key in it."""
    if isinstance(public, EccPublic):
        return replace(public, x=b"", y=b"") == template
    return replace(public, modulus=b"") == template


#: The attestation key: a primary key under the endorsement hierarchy.  `RESTRICTED` is what makes
#: an attestation worth anything: an unrestricted key signs whatever bytes its owner invents.
AK_TEMPLATE = EccPublic(
    name_alg=Alg.SHA256,
    attributes=_MADE_HERE | Attributes.USER_WITH_AUTH | Attributes.RESTRICTED | Attributes.SIGN,
    signing_hash=Alg.SHA256,
    curve=Curve.P256,
)

#: A storage primary key (TCG TPM v2.0 Provisioning Guidance, the ECC SRK).  Under the owner
#: hierarchy it is the parent of a person's keys.
STORAGE_TEMPLATE = EccPublic(
    name_alg=Alg.SHA256,
    attributes=_MADE_HERE
    | Attributes.USER_WITH_AUTH
    | Attributes.NO_DA
    | Attributes.RESTRICTED
    | Attributes.DECRYPT,
    symmetric_bits=128,
    curve=Curve.P256,
)


#: A host's TLS key, under the owner's storage key: for programs that know nothing of custody, so it
#: signs whatever it is given, with no authorisation value that they would have to hold.
TLS_KEY_TEMPLATE = EccPublic(
    name_alg=Alg.SHA256,
    attributes=_MADE_HERE | Attributes.USER_WITH_AUTH | Attributes.NO_DA | Attributes.SIGN,
    signing_hash=Alg.SHA256,
    curve=Curve.P256,
)

#: H's parent: the same under the NULL hierarchy, so that a TPM Reset destroys it.
HOST_PARENT_TEMPLATE = STORAGE_TEMPLATE


def host_key_template(curve: Curve, auth_policy: bytes) -> EccPublic:
    """Return what H's public area must be, but for its point.

    `USER_WITH_AUTH` and `ADMIN_WITH_POLICY` are clear: only the policy opens H.
    """
    return EccPublic(
        name_alg=Alg.SHA256,
        attributes=_MADE_HERE | Attributes.NO_DA | Attributes.DECRYPT,
        auth_policy=auth_policy,
        curve=curve,
    )


def sealed_template(auth_policy: bytes) -> bytes:
    """Return the TPMT_PUBLIC of a sealed secret, for TPM2_Create.

    Part 2 section 12.2.3.3: KEYEDHASH, scheme NULL, no unique value.  SENSITIVE_DATA_ORIGIN is
    clear because the data comes from outside.
    """
    attributes = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.NO_DA
    head = u16(Alg.KEYEDHASH) + u16(Alg.SHA256) + u32(attributes)
    return head + sized(auth_policy) + u16(Alg.NULL) + sized(b"")
