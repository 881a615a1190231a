"""EK certificates for `make`: a vendor of our own certifies the key of a software TPM."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from custody.encoding import encode, format_time, key_id
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.evidence import pack_quote
from custody.keys.tpm_session import certificate_spki
from tests.unit.machine import EK_PURPOSE, IDENTITY, Vendor, common_name, rsa_key, usage
from tests.unit.people import NOW, signed
from tests.vectors.attestation.forge import Made, Maker

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class _Certificate:
    """What an EK certificate says."""

    vendor: Vendor = field(default_factory=Vendor)
    purpose: ObjectIdentifier | None = EK_PURPOSE
    identity: tuple[str, ...] = IDENTITY
    ca: bool = False
    usage: x509.KeyUsage = field(default_factory=lambda: usage(encipherment=True))
    until: datetime = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def issue(self, spki: bytes) -> bytes:
        """Have the vendor's issuer sign it."""
        key = load_der_public_key(spki)
        assert isinstance(key, rsa.RSAPublicKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(common_name("unknown"))
            .issuer_name(common_name(f"{self.vendor.label} issuer"))
            .public_key(key)
            .serial_number(2)
            .not_valid_before(NOW - 400 * _DAY)
            .not_valid_after(self.until)
            .add_extension(x509.BasicConstraints(ca=self.ca, path_length=None), critical=True)
            .add_extension(self.usage, critical=True)
        )
        if self.purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([self.purpose]), critical=False)
        if self.identity:
            names = [x509.NameAttribute(ObjectIdentifier(oid), "id:1") for oid in self.identity]
            san = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(names))])
            builder = builder.add_extension(san, critical=True)
        made = builder.sign(rsa_key(f"{self.vendor.label} issuer"), hashes.SHA256())
        return made.public_bytes(Encoding.DER)


def enrolments(maker: Maker) -> Iterator[Made]:
    """Make what enrollers are shown, and must not vouch for."""
    spki = certificate_spki(maker.host.ek_certificate())
    known = key_id(spki)
    good = _Certificate().issue(spki)
    stranger = Vendor("stranger")
    yield _made(maker, "ek-good", "a vendor's EK on the inventory, and its AK", good, known)
    for label, comment, check, certificate in (
        ("expired", "has expired", "chain", _Certificate(until=NOW - _DAY)),
        (
            "wrong-eku",
            "is a TLS server's",
            "purpose",
            _Certificate(purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        ),
        ("no-eku", "is for no purpose", "purpose", _Certificate(purpose=None)),
        ("no-identity", "names no TPM", "identity", _Certificate(identity=())),
        ("authority", "is an authority's", "ca", _Certificate(ca=True)),
        (
            "wrong-usage",
            "is for signing certificates",
            "usage",
            _Certificate(usage=usage(signs=True)),
        ),
        (
            "other-ca",
            "is of a vendor the policy does not pin",
            "chain",
            _Certificate(vendor=stranger),
        ),
    ):
        yield _made(
            maker,
            f"ek-{label}",
            f"the EK's certificate {comment}",
            certificate.issue(spki),
            known,
            f"endorsement.{check}",
            vendor=certificate.vendor,
        )
    yield _made(
        maker,
        "ek-not-in-inventory",
        "a genuine EK of that vendor which nobody approved: any TPM in the world",
        good,
        "00" * 32,
        "endorsement.inventory",
    )
    # BER that many readers take: the outer length in more bytes than it needs; a byte behind.
    for label, der in (
        ("long-length", b"\x30\x83\x00" + good[2:]),
        ("trailing", good + b"\0"),
        ("truncated", good[:-1]),
    ):
        yield _made(
            maker,
            f"ek-malformed-{label}",
            "the EK's certificate is not DER",
            der,
            known,
            "endorsement.certificate",
        )
    other = _Certificate().issue(_public_of("another ek"))
    yield _made(
        maker,
        "ek-swapped",
        "the certificate of another approved EK beside an AK that quoted this one's",
        other,
        key_id(_public_of("another ek")),
        "enrolment.bound",
        quoted=good,
        cve="CVE-2021-3406",
    )


def revocations(maker: Maker) -> Iterator[Made]:
    """Make EKs that their vendor has revoked, and lists that say too little."""
    spki = certificate_spki(maker.host.ek_certificate())
    known = key_id(spki)
    good, vendor = _Certificate().issue(spki), Vendor()
    issuer = key_id(certificate_spki(vendor.issuer))
    root_list, stranger = vendor.crl(by="root"), Vendor("stranger")
    fresh = (root_list, vendor.crl(7))
    demanding = "policy-vendor-lists.dsse"
    cases: tuple[tuple[str, str, tuple[bytes, ...], str, tuple[str, ...], str], ...] = (
        (
            "lists-good",
            "every certificate has a fresh list of its issuer",
            fresh,
            demanding,
            (),
            "",
        ),
        (
            "revoked",
            "the EK's certificate is on its issuer's list",
            (root_list, vendor.crl(7, good)),
            demanding,
            ("endorsement.revoked",),
            "",
        ),
        (
            "revoked-undemanded",
            "the same where the policy demands no lists: what is known counts",
            (vendor.crl(7, good),),
            "policy-vendor.dsse",
            ("endorsement.revoked",),
            "",
        ),
        (
            "revoked-forgotten",
            "an older list revoked the EK, and the newest has forgotten it",
            (root_list, vendor.crl(6, good), vendor.crl(7)),
            demanding,
            ("endorsement.revoked",),
            "",
        ),
        (
            "issuer-revoked",
            "the root has revoked the authority that issued the EK's certificate",
            (vendor.crl(1, vendor.issuer, by="root"), vendor.crl(7)),
            demanding,
            ("endorsement.revoked",),
            "",
        ),
        (
            "lists-absent",
            "the policy demands lists of this vendor, and there is none",
            (),
            demanding,
            ("crl.found",),
            "",
        ),
        (
            "lists-root-absent",
            "the issuer's list is here, and the root's is not",
            (vendor.crl(7),),
            demanding,
            ("crl.found",),
            "",
        ),
        (
            "lists-stale",
            "the issuer's list was due again yesterday",
            (root_list, vendor.crl(7, issued=-9 * _DAY, lasts=8 * _DAY)),
            demanding,
            ("crl.fresh",),
            "",
        ),
        (
            "lists-rolled-back",
            "a list older than the one this enroller has seen",
            fresh,
            demanding,
            ("crl.number",),
            f"{issuer}=8",
        ),
        (
            "lists-strangers",
            "lists by another vendor in this one's name",
            (root_list, _renamed(stranger, good)),
            demanding,
            ("crl.found",),
            "",
        ),
        (
            "lists-malformed",
            "the issuer's list is not DER",
            (root_list, vendor.crl(7) + b"\0"),
            demanding,
            ("crl.found",),
            "",
        ),
    )
    for label, comment, lists, policies, fails, floor in cases:
        made = _made(maker, f"ek-{label}", comment, good, known, *fails)
        headers = dict(made.headers)
        headers["policies"] = policies
        headers["lists"] = " ".join(base64.b64encode(der).decode() for der in lists)
        headers["list-floor"] = floor
        yield replace(made, headers=tuple(headers.items()))


def _renamed(stranger: Vendor, der: bytes) -> bytes:
    """Have a stranger's key sign a list in the name of the vendor's issuer."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(common_name("vendor issuer"))
        .last_update(NOW - _DAY)
        .next_update(NOW + 6 * _DAY)
        .add_extension(x509.CRLNumber(7), critical=False)
    )
    signed_by = rsa_key(f"{stranger.label} issuer")
    return builder.sign(signed_by, hashes.SHA256()).public_bytes(Encoding.DER)


def _public_of(label: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import PublicFormat

    public = rsa_key(label).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _made(
    maker: Maker,
    label: str,
    comment: str,
    certificate: bytes,
    inventory: str,
    *fails: str,
    vendor: Vendor | None = None,
    quoted: bytes = b"",
    cve: str = "",
) -> Made:
    asked = EnrolmentRequest(
        kind="custody/enrolment-request/v1",
        host="gpu-1",
        ek_certificate=quoted or certificate,
        ek_intermediates=((vendor or Vendor()).issuer,),
        ak_public=maker.ak_public(),
        quote=b"\0",
    )
    quote = maker.host.quote(asked.qualifying(), (0,))
    asked = msgspec.structs.replace(
        asked, ek_certificate=certificate, quote=pack_quote(quote.attest, quote.signature)
    )
    return Made(
        name=label,
        headers=(
            ("expect", "fail " + " ".join(fails) if fails else "pass"),
            ("comment", comment),
            ("cve", cve),
            ("rule", "enrolment"),
            ("policies", "policy-vendor.dsse"),
            ("inventory", inventory),
            ("moment", format_time(NOW)),
            ("enrolment-request", encode(asked).decode()),
        ),
    )


def vendor_policy(maker: Maker, *, lists: tuple[str, ...] = ()) -> bytes:
    """Write a policy that pins the vendor's root; ``lists``: whose revocation lists it demands."""
    host = msgspec.structs.replace(
        maker.policy.host, vendor_roots=(Vendor().root,), vendor_crls=lists
    )
    return signed(msgspec.structs.replace(maker.policy, host=host), "ida", "cas")
