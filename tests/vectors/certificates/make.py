"""Write judge.txt and malformed.txt anew, with fresh keys.

Run as ``python -m tests.vectors.certificates.make``.  Only needed to add a vector: what is written
down stays true for ever.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from custody.crypto.certificates import (
    Revocation,
    issue_authority,
    issue_certificate,
    issue_crl,
    make_csr,
    read_certificate,
)
from custody.crypto.der import elements, tlv
from custody.crypto.signature import public_bytes
from custody.encoding import format_time, key_id

HERE = Path(__file__).parent
START = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365 * DAY
MOMENT = START + 100 * DAY
SHA256_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
SHA1_ALGORITHM = bytes.fromhex("300906072a8648ce3d0401")

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A certificate authority and what it issues."""

    def __init__(self, name: str = "production authority", years: int = 5) -> None:
        self.key: Key = ec.generate_private_key(ec.SECP256R1())
        self.der = issue_authority(
            self.key, name=name, not_before=START, not_after=START + years * YEAR
        )

    @property
    def id(self) -> str:
        return key_id(public_bytes(self.key.public_key()))

    def certificate(
        self,
        key: Key,
        *,
        name: str = "alice",
        use: Literal["sign", "share"] = "sign",
        days: tuple[int, int] = (0, 365),
    ) -> bytes:
        return issue_certificate(
            self.key,
            self.der,
            spki=public_bytes(key.public_key()),
            principal=name,
            display="Alice Example",
            use=use,
            not_before=START + days[0] * DAY,
            not_after=START + days[1] * DAY,
        )

    def crl(
        self,
        number: int = 7,
        *,
        day: float = 90,
        lasts: int = 60,
        revoked: Iterable[Revocation] = (),
    ) -> bytes:
        return issue_crl(
            self.key,
            self.der,
            entries=tuple(revoked),
            number=number,
            this_update=START + day * DAY,
            next_update=START + (day + lasts) * DAY,
        )


def revoke(der: bytes, day: float) -> Revocation:
    """Revoke a certificate on a day after the start."""
    return Revocation(
        serial=read_certificate(der).serial_number,
        revoked_at=START + day * DAY,
        reason="keyCompromise",
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vector of judge.txt."""

    comment: str
    expect: str
    spki: bytes
    certificates: tuple[bytes, ...]
    authorities: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    use: str = "sign"
    principal: str = "alice"
    moment: datetime = MOMENT
    max_age_days: int = 60
    floor: str = "0"


def base64_of(*blobs: bytes) -> str:
    """Write blobs as the vector files hold them."""
    return " ".join(base64.b64encode(blob).decode() for blob in blobs)


def write_case(case: Case) -> str:
    """Write one block of judge.txt."""
    return "\n".join(
        (
            f"expect: {case.expect}",
            f"comment: {case.comment}",
            f"moment: {format_time(case.moment)}",
            f"use: {case.use}",
            f"principal: {case.principal}",
            f"max-age-days: {case.max_age_days}",
            f"floor: {case.floor}",
            f"spki: {base64_of(case.spki)}",
            f"authorities: {base64_of(*case.authorities)}",
            f"certificates: {base64_of(*case.certificates)}",
            f"crls: {base64_of(*case.crls)}",
        )
    )


# ── surgery ──────────────────────────────────────────────────────────────────────────────────────


def resign(der: bytes, key: Key, *, sha1: bool = False, body: list[bytes] | None = None) -> bytes:
    """Sign a certificate or list again, with another algorithm or another body."""
    parts = body or list(elements(elements(der)[0]))
    algorithm = SHA1_ALGORITHM if sha1 else SHA256_ALGORITHM
    tbs = tlv(0x30, b"".join(algorithm if part == SHA256_ALGORITHM else part for part in parts))
    digest = hashes.SHA1() if sha1 else hashes.SHA256()
    signature = key.sign(tbs, ec.ECDSA(digest))
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature))


def other_s(der: bytes) -> bytes:
    """Turn the ECDSA signature into the other valid one, as anybody can."""
    tbs, algorithm, bits = elements(der)
    r, s = decode_dss_signature(bits[3:])
    order = ec.SECP256R1().group_order
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + encode_dss_signature(r, order - s)))


def twice(der: bytes, key: Key) -> bytes:
    """Repeat the first extension of a certificate."""
    body = list(elements(elements(der)[0]))
    inner = elements(body[-1][_header(body[-1]) :])
    body[-1] = tlv(0xA3, tlv(0x30, inner[0] + b"".join(inner)))
    return resign(der, key, body=body)


def _header(der: bytes) -> int:
    return 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)


def compressed(ca: Authority, key: Key, der: bytes) -> bytes:
    """Write a certificate's key as a compressed point."""
    body = list(elements(elements(der)[0]))
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    body[6] = tlv(0x30, elements(body[6])[0] + tlv(3, b"\0" + point))
    return resign(der, ca.key, body=body)


def spoil(der: bytes, at: int = -1) -> bytes:
    """Change one bit."""
    changed = bytearray(der)
    changed[at] ^= 1
    return bytes(changed)


def builder(
    subject: x509.Name, issuer: bytes, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """Start a certificate by hand."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(read_certificate(issuer).subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START + YEAR)
    )


def usage(
    *, sign: bool = False, share: bool = False, ca: bool = False, crl: bool = False
) -> x509.KeyUsage:
    """Allow exactly these uses."""
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=share,
        key_cert_sign=ca,
        crl_sign=crl,
        encipher_only=False,
        decipher_only=False,
    )


def common(*names: str) -> x509.Name:
    """Write a subject of common names only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def special(
    ca: Authority,
    key: Key,
    *extensions: tuple[x509.ExtensionType, bool],
    names: tuple[str, ...] = ("alice",),
) -> bytes:
    """Issue a certificate with exactly these extensions."""
    made = builder(common(*names), ca.der, key.public_key())
    for extension, critical in extensions:
        made = made.add_extension(extension, critical=critical)
    return made.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


def special_crl(
    ca: Authority,
    *extensions: tuple[x509.ExtensionType, bool],
    number: int | None = 7,
    reason: x509.ReasonFlags | None = None,
    day: int = 90,
) -> bytes:
    """Issue a list with exactly these extensions, and one entry if there is a ``reason``."""
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(read_certificate(ca.der).subject)
        .last_update(START + day * DAY)
        .next_update(START + (day + 60) * DAY)
    )
    if number is not None:
        made = made.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in extensions:
        made = made.add_extension(extension, critical=critical)
    if reason is not None:
        entry = x509.RevokedCertificateBuilder().serial_number(5).revocation_date(START)
        made = made.add_revoked_certificate(
            entry.add_extension(x509.CRLReason(reason), critical=False).build()
        )
    return made.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


# ── the vectors ──────────────────────────────────────────────────────────────────────────────────


class Cast:
    """Alice, her authority, and people who want to be either."""

    def __init__(self) -> None:
        self.ca = Authority()
        self.other = Authority("another authority")
        self.double = Authority()
        self.key: Key = ec.generate_private_key(ec.SECP256R1())
        self.stranger: Key = ec.generate_private_key(ec.SECP256R1())
        self.good = self.ca.certificate(self.key)
        self.case = Case(
            comment="",
            expect="pass",
            spki=public_bytes(self.key.public_key()),
            certificates=(self.good,),
            authorities=(self.ca.der,),
            crls=(self.ca.crl(),),
        )

    def passes(self, comment: str, **changes: object) -> Case:
        return replace(self.case, comment=comment, **changes)  # type: ignore[arg-type]

    def fails(self, checks: str, comment: str, **changes: object) -> Case:
        return replace(self.case, expect=f"fail {checks}", comment=comment, **changes)  # type: ignore[arg-type]


def good_cases(cast: Cast) -> Iterator[Case]:
    """What passes."""
    ca, key, good = cast.ca, cast.key, cast.good
    listed = ca.crl(8, day=200, revoked=[revoke(good, 150)])
    yield cast.passes("a certificate and a fresh list")
    yield cast.passes("a list issued after the moment counts", crls=(ca.crl(8, day=300),))
    yield cast.passes("revoked after the moment: told, and undoes nothing before", crls=(listed,))
    yield cast.passes("a share key", use="share", certificates=(ca.certificate(key, use="share"),))
    yield cast.passes("the floor is the list itself", floor=f"{ca.id}=7")
    yield cast.passes(
        "a second certificate for the same key, the first has expired",
        certificates=(ca.certificate(key, days=(0, 50)), good),
    )
    yield cast.passes(
        "files of strangers beside the good ones change nothing",
        certificates=(b"junk", cast.other.certificate(key), good, ca.certificate(cast.stranger)),
        crls=(
            b"junk",
            cast.double.crl(99, revoked=[revoke(good, 1)]),
            cast.other.crl(50),
            ca.crl(),
        ),
    )
    yield cast.passes(
        "the other valid signature of one list does not make it two",
        crls=(cast.case.crls[0], other_s(cast.case.crls[0])),
    )
    yield cast.passes(
        "judged long after the certificate expired, by a list that keeps expired ones",
        crls=(ca.crl(30, day=500),),
    )
    yield cast.passes("at the first second", moment=START, crls=(ca.crl(day=0),))
    yield cast.passes("at the last second", moment=START + YEAR, crls=(ca.crl(day=360),))


def certificate_cases(cast: Cast) -> Iterator[Case]:
    """Certificates that are wrong by themselves."""
    ca, key, good = cast.ca, cast.key, cast.good
    late = ca.crl(9, day=360)
    yield cast.fails(
        "certificate.validity", "expired", moment=START + YEAR + DAY, crls=(ca.crl(9, day=366),)
    )
    yield cast.fails(
        "certificate.validity",
        "expired a second ago",
        moment=START + YEAR + timedelta(seconds=1),
        crls=(late,),
    )
    yield cast.fails(
        "certificate.validity",
        "not yet valid",
        certificates=(ca.certificate(key, days=(200, 300)),),
    )
    yield cast.fails("certificate.found", "no certificate at all", certificates=())
    yield cast.fails(
        "certificate.found",
        "the same name, another key",
        certificates=(ca.certificate(cast.stranger),),
    )
    yield cast.fails(
        "certificate.subject", "another name", certificates=(ca.certificate(key, name="bob"),)
    )
    two = special(ca, key, (usage(sign=True), True), names=("alice", "bob"))
    yield cast.fails("certificate.subject", "two names", certificates=(two,))
    yield cast.fails(
        "certificate.usage",
        "a share certificate for a signing key",
        certificates=(ca.certificate(key, use="share"),),
    )
    yield cast.fails("certificate.usage", "a signing certificate for a share key", use="share")
    both = special(ca, key, (usage(sign=True, share=True), True))
    yield cast.fails("certificate.usage", "for both uses is for neither", certificates=(both,))
    yield cast.fails("certificate.usage", "no key usage", certificates=(special(ca, key),))
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    web = special(ca, key, (usage(sign=True), True), (server, False))
    yield cast.fails("certificate.usage", "a web server's certificate", certificates=(web,))
    yield cast.fails(
        "certificate.usage certificate.subject",
        "the authority's own certificate",
        spki=public_bytes(ca.key.public_key()),
        certificates=(ca.der,),
    )
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0")
    odd = special(ca, key, (usage(sign=True), True), (unknown, True))
    yield cast.fails("certificate.path", "an unknown critical extension", certificates=(odd,))
    yield cast.fails("certificate.found", "an extension twice", certificates=(twice(good, ca.key),))
    yield cast.fails(
        "certificate.found",
        "the same point, compressed, is not the listed key",
        certificates=(compressed(ca, key, good),),
    )


def path_cases(cast: Cast) -> Iterator[Case]:
    """Certificates of the wrong authority."""
    ca, key, good = cast.ca, cast.key, cast.good
    yield cast.fails(
        "certificate.path", "another authority", certificates=(cast.other.certificate(key),)
    )
    yield cast.fails(
        "certificate.path",
        "an authority of the same name with another key",
        certificates=(cast.double.certificate(key),),
    )
    yield cast.fails("certificate.path", "a bad signature", certificates=(spoil(good),))
    yield cast.fails(
        "certificate.path", "signed with SHA-1", certificates=(resign(good, ca.key, sha1=True),)
    )
    middle: Key = ec.generate_private_key(ec.SECP256R1())
    between = (
        builder(common("middle"), ca.der, middle.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(ca=True, crl=True), critical=True)
        .sign(ca.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    leaf = (
        builder(common("alice"), between, key.public_key())
        .add_extension(usage(sign=True), critical=True)
        .sign(middle, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    yield cast.fails(
        "certificate.path",
        "by way of an authority the policy does not list",
        certificates=(leaf, between),
    )
    yield cast.fails("certificate.path", "no authority is listed", authorities=())
    short = Authority(years=1)
    yield cast.fails(
        "certificate.path certificate.validity",
        "the authority has expired",
        moment=START + YEAR + DAY,
        authorities=(short.der,),
        certificates=(short.certificate(key),),
        crls=(short.crl(day=366),),
    )
    yield rsa_case(cast)
    yield cast.fails(
        "certificate.path", "an authority that may not sign lists", authorities=(no_lists(ca),)
    )


def no_lists(ca: Authority) -> bytes:
    """The authority's own key and name, without the right to sign revocation lists."""
    return special(
        ca,
        ca.key,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage(ca=True), True),
        names=("production authority",),
    )


def rsa_case(cast: Cast) -> Case:
    """A certificate by an authority whose key is too small."""
    key = rsa.generate_private_key(65537, 1024)
    authority = (
        x509.CertificateBuilder()
        .subject_name(common("old authority"))
        .issuer_name(common("old authority"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + YEAR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(ca=True, crl=True), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    leaf = (
        builder(common("alice"), authority, cast.key.public_key())
        .add_extension(usage(sign=True), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    return cast.fails(
        "certificate.path",
        "an RSA authority of 1024 bits",
        authorities=(authority,),
        certificates=(leaf,),
    )


def list_cases(cast: Cast) -> Iterator[Case]:
    """Lists that are missing, old, strange, or name the certificate."""
    ca, good = cast.ca, cast.good
    yield cast.fails("crl.found", "no list", crls=())
    yield cast.fails("crl.found", "another authority's list", crls=(cast.other.crl(),))
    yield cast.fails(
        "crl.found",
        "a list of an authority of the same name with another key",
        crls=(cast.double.crl(),),
    )
    yield cast.fails("crl.found", "a bad signature on the list", crls=(spoil(ca.crl()),))
    yield cast.fails(
        "crl.found", "a list signed with SHA-1", crls=(resign(ca.crl(), ca.key, sha1=True),)
    )
    yield cast.fails("crl.fresh", "the next list is overdue", crls=(ca.crl(day=30, lasts=60),))
    yield cast.fails("crl.fresh", "older than the policy allows", max_age_days=9)
    yield cast.fails("crl.number", "rolled back", floor=f"{ca.id}=8")
    yield cast.fails("crl.number", "two lists of one number", crls=(ca.crl(), ca.crl(day=91)))
    silent = special_crl(ca, number=30, day=500)
    yield cast.fails(
        "crl.fresh", "issued after the certificate expired, and may have dropped it", crls=(silent,)
    )
    for comment, day in (("revoked before the moment", 50.0), ("revoked at the moment", 100.0)):
        crl = ca.crl(8, day=day + 1, revoked=[revoke(good, day)])
        yield cast.fails("certificate.revoked", comment, crls=(crl,))
    revoked = ca.crl(8, day=80, revoked=[revoke(good, 50)])
    yield cast.fails(
        "certificate.revoked", "a newer list forgets the entry", crls=(revoked, ca.crl(9))
    )
    other = ca.certificate(cast.key, days=(0, 200))
    yield cast.fails(
        "certificate.revoked",
        "another certificate of the same key is revoked",
        certificates=(good, other),
        crls=(ca.crl(revoked=[revoke(other, 20)]),),
    )


def malformed(cast: Cast) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield kind, comment, part of the reason and bytes for malformed.txt."""
    ca, key, good, crl = cast.ca, cast.key, cast.good, cast.ca.crl()
    csr = make_csr(key, name="alice")
    for kind, der in (("certificate", good), ("crl", crl), ("csr", csr)):
        yield kind, "empty", "not a DER sequence", b""
        yield kind, "a trailing byte", "trailing bytes", der + b"\0"
        yield kind, "cut short", "cut short", der[:-1]
        tbs, algorithm, bits = elements(der)
        ber = b"\x30\x83" + (len(der) - 4).to_bytes(3, "big") + der[4:]
        yield kind, "a length in five bytes", "not minimal", ber
        loose = tlv(0x30, tbs + algorithm + tlv(0x03, b"\1" + bits[3:]))
        yield kind, "seven bits in the last byte of the signature", "whole bytes", loose
        null = tlv(0x30, algorithm[2:] + b"\5\0")
        yield kind, "parameters with ECDSA", "takes no parameters", tlv(0x30, tbs + null + bits)
    for kind, der in (("certificate", good), ("crl", crl)):
        tbs, _, bits = elements(der)
        yield (
            kind,
            "another algorithm outside than inside",
            "algorithms differ",
            tlv(0x30, tbs + SHA1_ALGORITHM + bits),
        )
    yield "certificate", "an extension twice", "DuplicateExtension", twice(good, ca.key)
    body = list(elements(elements(good)[0]))
    for comment, serial in (("zero", b"\0"), ("negative", b"\x80"), ("21 bytes", b"\1" * 21)):
        changed = [body[0], tlv(2, serial), *body[2:]]
        der = resign(good, ca.key, body=changed)
        yield "certificate", f"serial number: {comment}", "serial number", der
    second = resign(good, ca.key, body=[bytes.fromhex("a003020101"), *body[1:]])
    yield "certificate", "version 2", "not a version 3", second
    long = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a" * 65, _validate=False)])
    named = resign(good, ca.key, body=[*body[:5], long.public_bytes(), *body[6:]])
    yield "certificate", "a name of 65 bytes", "longer than RFC 5280 allows", named
    entry = x509.ReasonFlags
    for reason in (entry.certificate_hold, entry.remove_from_crl):
        made = special_crl(ca, reason=reason)
        yield "crl", f"an entry that can be undone: {reason.value}", "can be undone", made
    yield "crl", "no number", "has no number", special_crl(ca, number=None)
    partial = x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    yield "crl", "a partial list", "not a complete list", special_crl(ca, (partial, True))
    delta = x509.DeltaCRLIndicator(6)
    yield "crl", "a delta list", "not a complete list", special_crl(ca, (delta, True))
    asks = x509.CertificateSigningRequestBuilder().subject_name(common("alice"))
    more = asks.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    yield "csr", "asks to be an authority", "more than a name", _der(more, key)
    names = x509.CertificateSigningRequestBuilder().subject_name(common("alice", "bob"))
    yield "csr", "two names", "not one common name", _der(names, key)
    big: Key = ec.generate_private_key(ec.SECP521R1())
    yield "csr", "a P-521 key", "not a request for a P-256 or P-384 key", _der(asks, big)
    yield "csr", "signed by another key", "not signed by its own key", spoil(csr)


def _der(request: x509.CertificateSigningRequestBuilder, key: Key) -> bytes:
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def main() -> None:
    """Write both files."""
    cast = Cast()
    cases = [*good_cases(cast), *certificate_cases(cast), *path_cases(cast), *list_cases(cast)]
    head = """
# Certificates judged at a moment.  expect: pass, or fail and every check that fails; floor:
# the list number remembered, as AUTHORITY-KEY-ID=NUMBER; spki: the listed key; authorities,
# certificates, crls: DER in base64, any number of them.
"""
    text = "\n\n".join([head.strip(), *map(write_case, cases)])
    (HERE / "judge.txt").write_text(text + "\n", encoding="utf-8")
    head = """
# What the strict readers refuse.  kind: certificate, crl or csr; reason: part of the reason
# given; der: base64.
"""
    blocks = [
        f"kind: {kind}\ncomment: {kind}: {comment}\nreason: {reason}\nder: {base64_of(der)}"
        for kind, comment, reason, der in malformed(cast)
    ]
    (HERE / "malformed.txt").write_text(
        "\n\n".join([head.strip(), *blocks]) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
