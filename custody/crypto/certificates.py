"""X.509 certificates, requests and revocation lists, written by keys that may live in tokens.

Follows RFC 5280 (certificates, CRLs), RFC 2986 (PKCS#10), RFC 5480 and 5758 (EC keys, ECDSA).
A key id is the SHA-256 of the SubjectPublicKeyInfo (RFC 7093 section 2, method 4), which is what
every other document calls a key by.  Whatever behaves like a `cryptography` EC private key signs.
The strict readers of `certificate_reader` are offered here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from custody.crypto.certificate_reader import (
    EXPIRED_CERTS_ON_CRL,
    CertificateRequest,
    Reason,
    Revocation,
    certificate_signed_by,
    crl_issued_by,
    crl_number,
    crl_signed_by,
    keeps_expired_since,
    read_certificate,
    read_crl,
    read_csr,
    revocations_of,
    spki_of,
)
from custody.crypto.der import GENERALIZED_TIME, tlv
from custody.crypto.oaepslots import load_rsa_public
from custody.crypto.signature import load_ec_public, public_bytes
from custody.encoding import sha256
from custody.errors import Malformed, Refused

__all__ = [
    "CertificateRequest",
    "Reason",
    "Revocation",
    "Use",
    "certificate_signed_by",
    "crl_issued_by",
    "crl_number",
    "crl_signed_by",
    "issue_authority",
    "issue_certificate",
    "issue_crl",
    "issue_leaf",
    "keeps_expired_since",
    "make_csr",
    "read_certificate",
    "read_crl",
    "read_csr",
    "revocations_of",
    "spki_of",
]

#: What a key does.  No key does both.
Use = Literal["sign", "share"]

#: X.520 section 6.2.1: a name for people.
_DISPLAY = ObjectIdentifier("2.5.4.41")

_CURVES: dict[str, hashes.SHA256 | hashes.SHA384] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}


def issue_authority(
    key: ec.EllipticCurvePrivateKey, *, name: str, not_before: datetime, not_after: datetime
) -> bytes:
    """Write a self-signed certificate authority (DER) that issues to people, never to authorities.

    ``key`` is on P-256 or P-384; times are aware and in whole seconds.
    """
    spki = public_bytes(key.public_key())
    subject = _name(name)
    builder = (
        _builder(spki, not_before=not_before, not_after=not_after)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
    )
    der = builder.sign(key, _hash_for(spki)).public_bytes(Encoding.DER)
    _check_issued(der, der)
    return der


def make_csr(key: ec.EllipticCurvePrivateKey, *, name: str) -> bytes:
    """Write a certificate request (DER) for a signing key: the proof that its sender holds it."""
    spki = public_bytes(key.public_key())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    der = request.sign(key, _hash_for(spki)).public_bytes(Encoding.DER)
    read_csr(der)
    return der


def issue_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    spki: bytes,
    principal: str,
    display: str,
    use: Use,
    not_before: datetime,
    not_after: datetime,
    code_signing: bool = False,
) -> bytes:
    """Write a certificate (DER) for a principal's key; its subject is ``CN=principal``.

    ``display`` is a name for people and may be empty.  ``code_signing`` adds the extended use that
    model signing tools look for in a publisher's certificate.  A certificate that would outlive
    its authority, or a key that is not the authority's, is `Refused`.
    """
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if code_signing:
        if use != "sign":
            raise Refused("a share key signs no code", check="certificate.usage")
        extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False))
    return issue_leaf(
        ca_key,
        ca_certificate,
        spki=spki,
        subject=_name(principal, display),
        use=use,
        extensions=extensions,
        not_before=not_before,
        not_after=not_after,
    )


def issue_leaf(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    spki: bytes,
    subject: x509.Name,
    use: Use,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    not_before: datetime,
    not_after: datetime,
) -> bytes:
    """Write a certificate (DER) of a key that is no authority; ``extensions`` say whether critical.

    A certificate that would outlive its authority, or a key that is not the authority's, is
    `Refused`.
    """
    authority = _authority(ca_key, ca_certificate)
    if not_before < authority.not_valid_before_utc or not_after > authority.not_valid_after_utc:
        raise Refused("the certificate would outlive its authority", check="certificate.validity")
    builder = (
        _builder(spki, not_before=not_before, not_after=not_after)
        .subject_name(subject)
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_leaf_usage(spki, use), critical=True)
        .add_extension(_authority_key(ca_certificate), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(ca_key, _hash_for(spki_of(ca_certificate)))
    der = signed.public_bytes(Encoding.DER)
    _check_issued(der, ca_certificate)
    return der


def issue_crl(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    entries: Sequence[Revocation],
    number: int,
    this_update: datetime,
    next_update: datetime,
    previous: bytes | None = None,
) -> bytes:
    """Write a complete revocation list (DER).

    ``previous`` is the list before this one: a number that does not grow, and an entry that went
    away or has a later date, is `Refused`.
    """
    if previous is not None:
        _check_successor(read_crl(previous), entries=entries, number=number)
    authority = _authority(ca_key, ca_certificate)
    since = authority.not_valid_before_utc.strftime("%Y%m%d%H%M%SZ").encode("ascii")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(ca_certificate), critical=False)
        # RFC 5280 section 3.3 lets a list drop an entry once its certificate has expired; an
        # auditor who judges last year by today's list would then find nobody revoked.  Ours
        # never drop one, and say so.
        .add_extension(
            x509.UnrecognizedExtension(EXPIRED_CERTS_ON_CRL, tlv(GENERALIZED_TIME, since)),
            critical=False,
        )
    )
    for entry in sorted(entries, key=lambda e: e.serial):
        builder = builder.add_revoked_certificate(_entry(entry))
    der = builder.sign(ca_key, _hash_for(spki_of(ca_certificate))).public_bytes(Encoding.DER)
    if not crl_signed_by(read_crl(der), ca_certificate):
        raise Refused("the key returned a wrong signature", check="certificate.authority")
    return der


def _name(common: str, display: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if display and display != common:
        attributes.append(x509.NameAttribute(_DISPLAY, display))
    return x509.Name(attributes)


def _builder(spki: bytes, *, not_before: datetime, not_after: datetime) -> x509.CertificateBuilder:
    public = _public_key(spki)
    return (
        x509.CertificateBuilder()
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier(sha256(spki)), critical=False)
    )


def _key_usage(
    *,
    sign: bool = False,
    agree: bool = False,
    decrypt: bool = False,
    certificates: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=decrypt,
        data_encipherment=False,
        key_agreement=agree,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf_usage(spki: bytes, use: Use) -> x509.KeyUsage:
    # RFC 3279 section 2.3.1: an RSA key does not agree, it deciphers keys.
    if not isinstance(_public_key(spki), rsa.RSAPublicKey):
        return _key_usage(sign=use == "sign", agree=use == "share")
    if use == "sign":
        raise Malformed("an RSA key signs nothing here")
    return _key_usage(decrypt=True)


def _public_key(spki: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Read a key that gets certificates: on P-256 or P-384, or an RSA key that shares go to."""
    with suppress(Malformed):
        return load_rsa_public(spki)
    _hash_for(spki)
    return load_ec_public(spki)


def _hash_for(spki: bytes) -> hashes.SHA256 | hashes.SHA384:
    try:
        return _CURVES[load_ec_public(spki).curve.name]
    except KeyError as error:
        raise Malformed("not a P-256 or P-384 key") from error


def _authority(key: ec.EllipticCurvePrivateKey, der: bytes) -> x509.Certificate:
    if public_bytes(key.public_key()) != spki_of(der):
        raise Refused("the key is not this authority's", check="certificate.authority")
    return read_certificate(der)


def _authority_key(der: bytes) -> x509.AuthorityKeyIdentifier:
    try:
        found = read_certificate(der).extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound as error:
        raise Malformed("the authority has no subject key identifier") from error
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _check_issued(der: bytes, authority: bytes) -> None:
    # A token that faults, or signs with another key, is found here and not by a stranger.
    if not certificate_signed_by(read_certificate(der), authority):
        raise Refused("the key returned a wrong signature", check="certificate.authority")


def _check_successor(
    previous: x509.CertificateRevocationList, *, entries: Sequence[Revocation], number: int
) -> None:
    if number <= crl_number(previous):
        raise Refused("the number of a revocation list must grow", check="crl.number")
    since = {entry.serial: entry.revoked_at for entry in entries}
    for entry in revocations_of(previous):
        if entry.serial not in since:
            raise Refused(
                f"certificate {entry.serial:x} would be revoked no longer", check="crl.entries"
            )
        if since[entry.serial] > entry.revoked_at:
            raise Refused(
                f"certificate {entry.serial:x} would be revoked later than it was",
                check="crl.entries",
            )


def _entry(entry: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(entry.serial)
        .revocation_date(entry.revoked_at)
    )
    if entry.reason != "unspecified":
        builder = builder.add_extension(
            x509.CRLReason(x509.ReasonFlags(entry.reason)), critical=False
        )
    return builder.build()
