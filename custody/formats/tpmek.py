"""Endorsement keys by the TCG's templates: from a certificate, the whole public area.

Source: TCG EK Credential Profile 2.5, section 2.2.1 (NV indexes) and annex B (templates L-1, L-2,
H-1, H-2, H-3).  Format: evidence.md, "Public areas".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from custody.errors import Malformed, Refused
from custody.formats.tpmpublic import Attributes, EccPublic, Public, RsaPublic
from custody.formats.tpmwire import Alg, Curve, digest, digest_bytes, u32

_CC_POLICY_OR = 0x171
_LOW = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.ADMIN_WITH_POLICY
    | Attributes.RESTRICTED
    | Attributes.DECRYPT
)
_HIGH = _LOW | Attributes.USER_WITH_AUTH

#: PolicyA: PolicySecret(endorsement hierarchy).
POLICY_SECRET = {
    Alg.SHA256: bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"),
    Alg.SHA384: bytes.fromhex(
        "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e"
        "143e8bb1133824ccb431053871c6db53"
    ),
}
#: PolicyC: PolicyAuthorizeNV(the index that the profile sets aside for it).
POLICY_NV = {
    Alg.SHA256: bytes.fromhex("3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"),
    Alg.SHA384: bytes.fromhex(
        "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5"
        "b4947c2d73e63005eed2dc2b3593d165"
    ),
}


def _policy_b(alg: Alg) -> bytes:
    """Return PolicyB, which every H template has: PolicyOR(PolicyA, PolicyC)."""
    start = bytes(digest_bytes(alg))
    return digest(alg, start + u32(_CC_POLICY_OR) + POLICY_SECRET[alg] + POLICY_NV[alg])


@dataclass(frozen=True, slots=True, kw_only=True)
class EkTemplate:
    """One template: the public area but for its key, and where a TPM keeps key and certificate.

    ``creation`` is what TPM2_CreatePrimary takes to make the EK again.  A nonce at ``nonce``, where
    a vendor left one, begins its unique field.
    """

    label: str
    public: Public
    creation: bytes
    certificate: int
    nonce: int | None
    persistent: int

    @property
    def branches(self) -> tuple[bytes, bytes] | None:
        """PolicyOR's branches, the first of which PolicySecret satisfies; None for L templates."""
        alg = self.public.name_alg
        if self.public.auth_policy == POLICY_SECRET[alg]:
            return None
        return POLICY_SECRET[alg], POLICY_NV[alg]

    def creation_with(self, nonce: bytes) -> bytes:
        """Return ``creation`` with a nonce in its unique field; one too long is `Malformed`."""
        if isinstance(self.public, RsaPublic):
            room = self.public.bits // 8
            whole: Public = replace(self.public, modulus=nonce.ljust(room, b"\0"))
        else:
            room = self.public.curve.coordinate_bytes
            whole = replace(self.public, x=nonce.ljust(room, b"\0"), y=bytes(room))
        if len(nonce) > room:
            raise Malformed("an EK nonce is longer than the key it is for")
        return whole.pack()


def _template(
    label: str,
    public: Public,
    certificate: int,
    persistent: int,
    *,
    nonce: int | None = None,
) -> EkTemplate:
    made = EkTemplate(
        label=label,
        public=public,
        creation=public.pack(),
        certificate=certificate,
        nonce=nonce,
        persistent=persistent,
    )
    # The unique field goes into the derivation: zeros in L templates, nothing in H templates.
    return made if nonce is None else replace(made, creation=made.creation_with(b""))


def _rsa_2048(attributes: Attributes, policy: bytes) -> RsaPublic:
    return RsaPublic(
        name_alg=Alg.SHA256,
        attributes=attributes,
        auth_policy=policy,
        symmetric_bits=128,
        bits=2048,
    )


def _ecc(attributes: Attributes, policy: bytes, *, alg: Alg, curve: Curve, aes: int) -> EccPublic:
    return EccPublic(
        name_alg=alg,
        attributes=attributes,
        auth_policy=policy,
        symmetric_bits=aes,
        curve=curve,
    )


_A, _B = POLICY_SECRET[Alg.SHA256], _policy_b(Alg.SHA256)
L_1 = _template("L-1", _rsa_2048(_LOW, _A), 0x01C00002, 0x81010001, nonce=0x01C00003)
L_2 = _template(
    "L-2",
    _ecc(_LOW, _A, alg=Alg.SHA256, curve=Curve.P256, aes=128),
    0x01C0000A,
    0x81010002,
    nonce=0x01C0000B,
)
H_1 = _template("H-1", _rsa_2048(_HIGH, _B), 0x01C00012, 0x81010012)
H_2 = _template(
    "H-2", _ecc(_HIGH, _B, alg=Alg.SHA256, curve=Curve.P256, aes=128), 0x01C00014, 0x81010014
)
H_3 = _template(
    "H-3",
    _ecc(_HIGH, _policy_b(Alg.SHA384), alg=Alg.SHA384, curve=Curve.P384, aes=256),
    0x01C00016,
    0x81010016,
)
#: In the order in which a host shows the certificates it has: what is everywhere first.
EK_TEMPLATES = (L_1, L_2, H_1, H_2, H_3)


def ek_publics(certificate_spki: bytes) -> tuple[tuple[EkTemplate, bytes], ...]:
    """Return every TPMT_PUBLIC that the EK whose certificate holds this key can have.

    The key comes from the verified certificate and everything else from a TCG template, so no
    public area that a host sends is ever believed.  An RSA-2048 key fits L-1 and H-1, a P-256 key
    L-2 and H-2: they differ in who may use the key inside its TPM, and in nothing that a credential
    or a salt is made with.  A key no template knows is `Refused`.
    """
    try:
        key = load_der_public_key(certificate_spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("the EK certificate's key cannot be read") from error
    found = [
        (template, public.pack())
        for template in EK_TEMPLATES
        if (public := _with_key(template.public, key)) is not None
    ]
    if not found:
        raise Refused(
            "the EK is neither RSA-2048 nor P-256 nor P-384 (L-1, L-2, H-1, H-2, H-3)",
            check="attestation.V14",
        )
    return tuple(found)


def ek_public(certificate_spki: bytes) -> bytes:
    """Return the TPMT_PUBLIC to make a credential with: the first of `ek_publics`."""
    return ek_publics(certificate_spki)[0][1]


def _with_key(template: Public, key: object) -> Public | None:
    """Put a public key into a template, if it is of its kind."""
    if isinstance(template, RsaPublic):
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size != template.bits:
            return None
        numbers = key.public_numbers()
        modulus = numbers.n.to_bytes(template.bits // 8, "big")
        return replace(template, modulus=modulus) if numbers.e == 65537 else None
    curve = ec.SECP256R1 if template.curve is Curve.P256 else ec.SECP384R1
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curve):
        return None
    point, size = key.public_numbers(), template.curve.coordinate_bytes
    return replace(template, x=point.x.to_bytes(size, "big"), y=point.y.to_bytes(size, "big"))
