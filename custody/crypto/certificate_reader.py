"""X.509 certificates, requests and revocation lists, read strictly.

Follows RFC 5280 (certificates, CRLs), RFC 2986 (PKCS#10), RFC 5480 and 5758 (EC keys, ECDSA).
Each reader takes the one DER encoding a document has.  Whether a certificate is to be believed
is for `rules.certificates`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Literal, cast

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import (
    CRLEntryExtensionOID,
    ExtensionOID,
    NameOID,
    ObjectIdentifier,
    SignatureAlgorithmOID,
)

from custody.crypto.der import (
    CONTEXT_0,
    GENERALIZED_TIME,
    INTEGER,
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    SET,
    content_of,
    elements,
    signed_body,
    tlv,
)
from custody.crypto.signature import load_ec_public
from custody.errors import Malformed, Refused

#: Why a certificate was revoked (RFC 5280 section 5.3.1), without the two that can be undone.
Reason = Literal[
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
]

MAX_CSR_BYTES = 16_384

#: ECDSA with SHA-2: every signature algorithm written here.
ECDSA_SHA2 = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)
_SHA2 = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_VENDOR_KEYS = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)
#: X.509 (10/2019) section 9.5.2.8: this list keeps entries of expired certificates since a time.
EXPIRED_CERTS_ON_CRL = ObjectIdentifier("2.5.29.60")

#: DER of attribute types and the most bytes their values have (RFC 5280 appendix A.1).
_BOUNDS = {
    bytes.fromhex("0603550403"): 64,  # common name
    bytes.fromhex("0603550406"): 2,  # country
}
_CURVES = frozenset({"secp256r1", "secp384r1"})


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A PKCS#10 request whose signature is good: whoever wrote it has the key."""

    name: str
    spki: bytes
    der: bytes


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a revocation list.  What was signed before ``revoked_at`` still counts."""

    serial: int
    revoked_at: datetime
    reason: Reason


# A folder's certificates are looked through for each key that is judged: every one is read once,
# because nothing but its bytes goes in.
@lru_cache(maxsize=256)
def read_certificate(der: bytes) -> x509.Certificate:
    """Read a v3 certificate from the one DER encoding it has; raise `Malformed` on any other.

    Any algorithm is read; the signature is not checked.
    """
    body = signed_body(der, max_bytes=MAX_CERTIFICATE_BYTES, inner=2)
    if len(body) < 7 or body[0] != bytes.fromhex("a003020102"):
        raise Malformed("not a version 3 certificate")
    _check_serial(body[1])
    _check_name(body[3])
    _check_name(body[5])
    with _malformed("certificate"):
        certificate = x509.load_der_x509_certificate(der)
        # Extensions are parsed on demand only: a duplicated one would otherwise surface later,
        # or be read by its first copy here and by its last elsewhere.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if certificate.public_bytes(Encoding.DER) != der:
            raise Malformed("not the one DER form of its certificate")
    return certificate


@lru_cache(maxsize=256)
def spki_of(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate as it stands there, byte for byte."""
    read_certificate(certificate)
    return elements(elements(certificate)[0])[6]


def read_csr(der: bytes) -> CertificateRequest:
    """Read a PKCS#10 request for a P-256 or P-384 key and check that its own key signed it.

    A request that asks for anything besides a common name is `Malformed`, a wrong signature is
    ``Refused(check="csr.signature")``.
    """
    body = signed_body(der, max_bytes=MAX_CSR_BYTES, inner=None)
    if len(body) != 4 or body[0] != tlv(INTEGER, b"\0") or body[3] != tlv(CONTEXT_0, b""):
        raise Malformed("asks for more than a name, or is no version 1 request")
    _check_name(body[1])
    spki = body[2]
    if load_ec_public(spki).curve.name not in _CURVES:
        raise Malformed("not a request for a P-256 or P-384 key")
    with _malformed("certificate request"):
        request = x509.load_der_x509_csr(der)
        if request.public_bytes(Encoding.DER) != der:
            raise Malformed("not the one DER form of its request")
        if request.signature_algorithm_oid not in ECDSA_SHA2:
            raise Malformed("not signed by ECDSA with SHA-2")
        names = list(request.subject)
        good = request.is_signature_valid
    if (
        len(names) != 1
        or names[0].oid != NameOID.COMMON_NAME
        or not isinstance(names[0].value, str)
    ):
        raise Malformed("subject is not one common name")
    if not good:
        raise Refused("the request is not signed by its own key", check="csr.signature")
    return CertificateRequest(name=names[0].value, spki=spki, der=der)


def read_crl(der: bytes) -> x509.CertificateRevocationList:
    """Read a complete v2 revocation list from its one DER encoding; its signature is not checked.

    Partial, indirect and delta lists, and entries that can be undone (certificateHold,
    removeFromCRL) are `Malformed`: absence from such a list proves nothing about the past.
    """
    body = signed_body(der, max_bytes=MAX_CRL_BYTES, inner=1)
    if len(body) < 3 or body[0] != tlv(INTEGER, b"\1"):
        raise Malformed("not a version 2 revocation list")
    _check_name(body[2])
    with _malformed("revocation list"):
        crl = x509.load_der_x509_crl(der)
        if crl.public_bytes(Encoding.DER) != der:
            raise Malformed("not the one DER form of its revocation list")
        if crl.next_update_utc is None:
            raise Malformed("does not say when the next list is due")
        _ = crl.issuer, crl.last_update_utc
        _check_crl_extensions(crl)
        serials = [entry.serial for entry in revocations_of(crl)]
    if len(serials) != len(set(serials)):
        raise Malformed("lists a certificate twice")
    return crl


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """Return the number of a list that `read_crl` read."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def keeps_expired_since(crl: x509.CertificateRevocationList) -> datetime | None:
    """Return since when a list keeps entries of expired certificates; None if it does not say."""
    for extension in crl.extensions:
        if extension.oid == EXPIRED_CERTS_ON_CRL:
            value = cast("x509.UnrecognizedExtension", extension.value).value
            try:
                moment = datetime.strptime(f"{value[2:].decode('ascii')}+0000", "%Y%m%d%H%M%SZ%z")
            except ValueError as error:
                raise Malformed("expiredCertsOnCRL holds no time") from error
            if value != tlv(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode("ascii")):
                raise Malformed("expiredCertsOnCRL holds no DER time")
            return moment
    return None


def revocations_of(crl: x509.CertificateRevocationList) -> tuple[Revocation, ...]:
    """Return every entry of a revocation list, in its order."""
    return tuple(_read_entry(entry) for entry in crl)


def crl_signed_by(crl: x509.CertificateRevocationList, authority: bytes) -> bool:
    """Tell whether ``authority`` (a DER certificate) signed the list, in its own name."""
    spki = spki_of(authority)
    if crl.signature_algorithm_oid not in ECDSA_SHA2:
        return False
    if crl.issuer != read_certificate(authority).subject:
        return False
    return crl.is_signature_valid(load_ec_public(spki))


def crl_issued_by(crl: x509.CertificateRevocationList, authority: bytes) -> bool:
    """Tell the same of a vendor's list, which may be signed by RSA (PKCS #1 v1.5) as well."""
    try:
        if not isinstance(crl.signature_hash_algorithm, _SHA2):
            return False
        issuer = read_certificate(authority)
        key = issuer.public_key()
        if crl.issuer != issuer.subject or not isinstance(key, _VENDOR_KEYS):
            return False
        return crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def certificate_signed_by(certificate: x509.Certificate, authority: bytes) -> bool:
    """Tell whether ``authority`` (a DER certificate) issued the certificate by ECDSA with SHA-2."""
    if certificate.signature_algorithm_oid not in ECDSA_SHA2:
        return False
    try:
        load_ec_public(spki_of(authority))
        certificate.verify_directly_issued_by(read_certificate(authority))
    except (Malformed, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _read_entry(entry: x509.RevokedCertificate) -> Revocation:
    reason = x509.ReasonFlags.unspecified
    for extension in entry.extensions:
        if extension.oid != CRLEntryExtensionOID.CRL_REASON:
            raise Malformed("an entry has an extension that is not a reason")
        reason = cast("x509.CRLReason", extension.value).reason
    if reason in {x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl}:
        raise Malformed("an entry can be undone: a hold says nothing about the past")
    return Revocation(
        serial=entry.serial_number,
        revoked_at=entry.revocation_date_utc,
        reason=cast("Reason", reason.value),
    )


def _check_crl_extensions(crl: x509.CertificateRevocationList) -> None:
    oids = {extension.oid for extension in crl.extensions}
    if ExtensionOID.CRL_NUMBER not in oids:
        raise Malformed("has no number")
    partial = {
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.DELTA_CRL_INDICATOR,
        ExtensionOID.FRESHEST_CRL,
    }
    if oids & partial or any(extension.critical for extension in crl.extensions):
        raise Malformed("is not a complete list, or has a critical extension")
    keeps_expired_since(crl)


@contextmanager
def _malformed(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise Malformed(f"not a DER {what}") from error
    except (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise Malformed(f"not a strict {what}: {type(error).__name__}") from error
    except (UnsupportedAlgorithm, Warning) as error:
        # The library only warns of some oddities inside extensions; where a caller has made
        # warnings errors, they are the document's fault and not the program's.
        raise Malformed(f"not a {what} this program reads") from error


def _check_name(name: bytes) -> None:
    if not content_of(name):
        return  # a TPM's endorsement certificate has no subject (TCG EK profile, 3.2.6)
    for relative in elements(name):
        for attribute in elements(relative, tag=SET):
            kind, *values = elements(attribute)
            bound = _BOUNDS.get(kind)
            if len(values) != 1 or (bound is not None and len(content_of(values[0])) > bound):
                raise Malformed("a name has an attribute longer than RFC 5280 allows")


def _check_serial(element: bytes) -> None:
    """RFC 5280 section 4.1.2.2: positive, at most 20 bytes."""
    content = element[2:]
    if element[0] != INTEGER or not 1 <= len(content) <= 20 or content[0] & 0x80:
        raise Malformed("serial number is not positive, or longer than 20 bytes")
    if content == b"\0":
        raise Malformed("serial number is zero")
