"""How a person's keys get to the custodian, by files.  Format: admission.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from custody.crypto.keyslots import SlotKey, is_oaep
from custody.crypto.pivattestation import MAX_ATTESTATION_BYTES
from custody.crypto.possession import possession_statement, prove_possession
from custody.crypto.signature import public_bytes
from custody.encoding import Blob, Digest, Name, Record, encode, sha256
from custody.errors import Malformed
from custody.formats.policy import Role, SuiteName, TokenClass

#: What a person is called by people: one printable line.
Display = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

#: A vendor's certificate (DER).
VendorCertificate = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_ATTESTATION_BYTES)]


class Invitation(Record, frozen=True):
    """A custodian's call for keys.  Its two public keys are made for it and used for nothing else.

    It is not signed: a forged one makes proofs that the real custodian refuses.
    """

    kind: Literal["custody/invitation/v1"]
    environment: Name
    custodian: Name
    p256: Blob
    p384: Blob

    def digest(self) -> Digest:
        """Return the hex SHA-256 of the invitation's one encoding."""
        return sha256(encode(self)).hex()

    def key_for(self, suite: SuiteName) -> bytes:
        """Return the public key (DER SPKI) on the curve of ``suite``."""
        return self.p256 if suite == "P256" else self.p384


class InvitationKeys(Record, frozen=True):
    """An invitation and its private halves (PKCS#8 DER), as the custodian keeps them."""

    kind: Literal["custody/invitation-keys/v1"]
    invitation: Invitation
    p256: Blob
    p384: Blob

    @classmethod
    def generate(cls, *, environment: str, custodian: str) -> InvitationKeys:
        """Make fresh keys, in software: what they protect is only the truth of a few proofs."""
        p256 = ec.generate_private_key(ec.SECP256R1())
        p384 = ec.generate_private_key(ec.SECP384R1())
        return cls(
            kind="custody/invitation-keys/v1",
            invitation=Invitation(
                kind="custody/invitation/v1",
                environment=environment,
                custodian=custodian,
                p256=public_bytes(p256.public_key()),
                p384=public_bytes(p384.public_key()),
            ),
            p256=_private_bytes(p256),
            p384=_private_bytes(p384),
        )

    def private_key(self, suite: SuiteName) -> ec.EllipticCurvePrivateKey:
        """Return the private half on the curve of ``suite``."""
        try:
            key = load_der_private_key(self.p256 if suite == "P256" else self.p384, password=None)
        except (ValueError, TypeError) as error:
            raise Malformed("invitation keys hold no private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Malformed("invitation keys hold no EC private key")
        if public_bytes(key.public_key()) != self.invitation.key_for(suite):
            raise Malformed("invitation keys are not the invitation's")
        return key

    def __repr__(self) -> str:
        """Show which invitation, never the keys."""
        return f"InvitationKeys({self.invitation.digest()[:16]}…)"


class ShareClaim(Record, frozen=True):
    """A key that secrets may be sealed to, and the proof that the sender holds its EC half.

    A key that only decrypts can prove nothing before it is asked (``possession.py``): no proof.
    """

    suite: SuiteName
    spki: Blob
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    proof: Digest | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mlkem is not None) != (self.suite == "MLKEM1024_P384"):
            raise ValueError("mlkem: given exactly when the suite is a hybrid")
        if (self.proof is None) != is_oaep(self.suite):
            raise ValueError("proof: missing exactly when the key only decrypts")


class Admission(Record, frozen=True):
    """A person's keys, offered to the custodian.  Neither signature nor proofs are checked yet."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:admission:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    invitation: Digest
    principal: Name
    display: Display
    role: Role
    token_class: TokenClass
    csr: Blob
    shares: Annotated[tuple[ShareClaim, ...], msgspec.Meta(max_length=15)]
    attestation: Annotated[tuple[VendorCertificate, ...], msgspec.Meta(max_length=24)] = ()
    """Certificates (DER) by which a vendor says that keys were made in its token, in order of their
    bytes.  Nothing says that they are good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.attestation) != sorted(set(self.attestation)):
            raise ValueError("attestation: not in order, or one twice")
        # A name is shown to the custodian while he decides: line breaks, terminal escapes and
        # direction marks would let it rewrite what he reads.
        if not self.display.isprintable():
            raise ValueError("display: not one printable line")

    def subject(self) -> tuple[str, Digest]:
        """Name the principal and the signing request."""
        return self.principal, sha256(self.csr).hex()

    def statement_of(self, share: ShareClaim) -> bytes:
        """Return the 32 bytes that ``share``'s proof must be over."""
        return possession_statement(
            invitation=bytes.fromhex(self.invitation),
            csr=self.csr,
            principal=self.principal,
            suite=share.suite,
            spki=share.spki,
            mlkem=share.mlkem,
        )


def claim_share(
    key: SlotKey,
    *,
    invitation: Invitation,
    principal: str,
    csr: bytes,
    suite: SuiteName,
    mlkem: bytes | None = None,
) -> ShareClaim:
    """Offer a share key, which may live in a token, with the proof that the sender holds it."""
    spki = public_bytes(key.public_key())
    if is_oaep(suite):
        return ShareClaim(suite=suite, spki=spki, mlkem=mlkem, proof=None)
    if isinstance(key, rsa.RSAPrivateKey):
        raise Malformed(f"an RSA key is no key for {suite}")
    statement = possession_statement(
        invitation=bytes.fromhex(invitation.digest()),
        csr=csr,
        principal=principal,
        suite=suite,
        spki=spki,
        mlkem=mlkem,
    )
    proof = prove_possession(key, invitation_key=invitation.key_for(suite), statement=statement)
    return ShareClaim(suite=suite, spki=spki, mlkem=mlkem, proof=proof.hex())


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
