"""A host's TPM in software, with a vendor of its own: for tests of what enrollers judge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from custody.crypto.certificates import spki_of
from custody.crypto.signature import sign
from custody.encoding import sha256
from custody.errors import Refused
from custody.formats.evidence import (
    AK_TEMPLATE,
    RH_ENDORSEMENT,
    Alg,
    Attest,
    ClockInfo,
    EccPublic,
    EcdsaSignature,
    PcrBank,
    Quoted,
    ek_public,
    name,
    qualified_name,
)
from custody.keys.hostapi import Attested
from tests.unit.people import NOW

EK_PURPOSE = ObjectIdentifier("2.23.133.8.1")
IDENTITY = ("2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3")


@cache
def rsa_key(label: str) -> rsa.RSAPrivateKey:
    """Return the RSA key of that name, the same one all through a test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def common_name(text: str) -> x509.Name:
    """Return a name with one part."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, signs: bool = False, encipherment: bool = False) -> x509.KeyUsage:
    """Return a key usage."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Vendor:
    """A TPM vendor: a root and an issuer below it."""

    label: str = "vendor"

    @property
    def root(self) -> bytes:
        return _authority(self.label, self.label)

    @property
    def issuer(self) -> bytes:
        return _authority(f"{self.label} issuer", self.label)

    def crl(
        self,
        number: int = 1,
        *revoked: bytes,
        by: str = "issuer",
        issued: timedelta = timedelta(days=-1),
        lasts: timedelta = timedelta(days=7),
        at: timedelta = timedelta(days=-2),
    ) -> bytes:
        """Write a revocation list of the issuer's, or of the root's, naming certificates."""
        name = self.label if by == "root" else f"{self.label} issuer"
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(common_name(name))
            .last_update(NOW + issued)
            .next_update(NOW + issued + lasts)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for der in revoked:
            serial = x509.load_der_x509_certificate(der).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW + at).build())
        return builder.sign(rsa_key(name), hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def _authority(subject: str, issuer: str) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name(subject))
        .issuer_name(common_name(issuer))
        .public_key(rsa_key(subject).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1000))
        .not_valid_after(NOW + timedelta(days=3000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(signs=True), critical=True)
    )
    return builder.sign(rsa_key(issuer), hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class EkCertificate:
    """What an EK certificate says; tests change one thing at a time."""

    vendor: Vendor = Vendor()
    key: str = "ek"
    purpose: ObjectIdentifier | None = EK_PURPOSE
    identity: tuple[str, ...] = IDENTITY
    ca: bool | None = False
    usage: x509.KeyUsage | None = field(default_factory=lambda: usage(encipherment=True))
    not_before: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    not_after: datetime = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def issue(self) -> bytes:
        """Have the vendor's issuer sign it."""
        names = [x509.NameAttribute(ObjectIdentifier(oid), "id:1") for oid in self.identity]
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if self.purpose is not None:
            extensions.append((x509.ExtendedKeyUsage([self.purpose]), False))
        if names:
            san = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(names))])
            extensions.append((san, True))
        if self.ca is not None:
            extensions.append((x509.BasicConstraints(ca=self.ca, path_length=None), True))
        if self.usage is not None:
            extensions.append((self.usage, True))
        builder = (
            x509.CertificateBuilder()
            .subject_name(common_name("unknown"))
            .issuer_name(common_name(f"{self.vendor.label} issuer"))
            .public_key(rsa_key(self.key).public_key())
            .serial_number(2)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        issuer = rsa_key(f"{self.vendor.label} issuer")
        return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class SoftTpm:
    """As much of a `HostTpm` as enrolment uses."""

    certificate: bytes = field(default_factory=lambda: EkCertificate().issue())
    vendor: Vendor = Vendor()
    template: EccPublic = AK_TEMPLATE
    hierarchy: int = RH_ENDORSEMENT
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    firmware: int = 0x2019102300163636
    pcrs: dict[int, bytes] = field(default_factory=dict)

    def ek_certificate(self) -> bytes:
        return self.certificate

    def ek_intermediates(self) -> tuple[bytes, ...]:
        return (self.vendor.issuer,)

    def ak_public(self) -> bytes:
        point = self.key.public_key().public_numbers()
        x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
        return replace(self.template, x=x, y=y).pack()

    def quote(self, qualifying: bytes, pcrs: tuple[int, ...]) -> Attested:
        values = b"".join(self.pcr_values(pcrs))
        attest = Attest(
            signer=qualified_name(self.hierarchy, name(self.ak_public())),
            extra_data=qualifying,
            clock=ClockInfo(clock_ms=1000, reset_count=3, restart_count=0, safe=True),
            firmware_version=self.firmware,
            body=Quoted(banks=(PcrBank(Alg.SHA256, pcrs),), pcr_digest=sha256(values)),
        ).pack()
        r, s = decode_dss_signature(sign(self.key, attest))
        signature = EcdsaSignature(
            hash_alg=Alg.SHA256, r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big")
        )
        return Attested(attest, signature.pack())

    def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        return tuple(self.pcrs.get(pcr, bytes(32)) for pcr in pcrs)

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        if encrypted_secret != self._mine(credential_blob):
            raise Refused("the challenge was made for another EK or AK", check="tpm.activate")
        return credential_blob

    def _mine(self, blob: bytes) -> bytes:
        ek = ek_public(spki_of(self.certificate))
        return make_credential(ek, name(self.ak_public()), blob)[1]


def make_credential(ek: bytes, ak_name: bytes, secret: bytes, /) -> tuple[bytes, bytes]:
    """Stand in for TPM2_MakeCredential: it hides nothing, but names EK, AK and secret."""
    return secret, sha256(ek, ak_name, secret)
