"""Certificates for keys of hosts: attestation keys, and keys their servers answer TLS with.

Format: formats/hostcertificate.md.  Follows RFC 5280; RFC 4043 for the permanent identifier; TCG EK
Credential Profile 2.5, section 3.2.9, for how a TPM is named; and for its purpose the TCG OID
registry (tcg-kp-AIKCertificate).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from custody.crypto.certificates import issue_leaf, read_certificate
from custody.crypto.der import SEQUENCE, UTF8_STRING, content_of, elements, tlv
from custody.encoding import Digest, KeyId
from custody.errors import Malformed

#: tcg-kp-AIKCertificate: this key attests for a TPM.
AK_PURPOSE = ObjectIdentifier("2.23.133.8.3")
#: tcg-at-tpmManufacturer, tcg-at-tpmModel, tcg-at-tpmVersion.
TPM_IDENTITY = frozenset({"2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"})
#: id-on-permanentIdentifier.
_PERMANENT = ObjectIdentifier("1.3.6.1.5.5.7.8.3")

_EK = "urn:ek:sha256:"
_AK = "urn:custody:ak-name:"
_KEY = "urn:custody:tls-key:"

_SOURCE = re.compile(
    r"urn:custody:(?P<source>enrolment|enrolment-request):v1:(?P<digest>[0-9a-f]{64})"
)

#: Who vouched for the host: a policy's enrollers in a record, or the authority alone.
Source = Literal["enrolment", "enrolment-request"]
#: Where a TLS key is: fixed in the TPM, or in a file that its host's AK only spoke for.
KeyClass = Literal["tpm", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What a certificate says of a host, and by which document.

    ``digest`` is the statement digest of the enrolment record (``enrolment``), or the digest of the
    request that the authority itself judged and challenged (``enrolment-request``).
    """

    host: str
    ek_spki: KeyId
    source: Source
    digest: Digest

    @property
    def urn(self) -> str:
        """The document as a URI of the certificate."""
        return f"urn:custody:{self.source}:v1:{self.digest}"

    @property
    def ek_urn(self) -> str:
        """The EK as a URI, in the form that attestation authorities share: base64 of SHA-256."""
        return _EK + base64.b64encode(bytes.fromhex(self.ek_spki)).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """From when to when a certificate is good, and where the list is that can end it sooner."""

    not_before: datetime
    not_after: datetime
    crl_url: str | None = None


def issue_ak_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    spki: bytes,
    ak_name: bytes,
    vouched: Vouched,
    ek_certificate: bytes,
    term: Term,
) -> bytes:
    """Write an AK's certificate (DER).  Its subject is empty: the TPM is named beside it."""
    names = [
        x509.DirectoryName(x509.Name(tpm_identity(ek_certificate))),
        _permanent(vouched.host),
        x509.UniformResourceIdentifier(vouched.ek_urn),
        x509.UniformResourceIdentifier(_AK + ak_name.hex()),
        x509.UniformResourceIdentifier(vouched.urn),
    ]
    return issue_leaf(
        ca_key,
        ca_certificate,
        spki=spki,
        subject=x509.Name([]),
        use="sign",
        extensions=[
            (x509.ExtendedKeyUsage([AK_PURPOSE]), False),
            # RFC 5280 section 4.1.2.6: critical where the subject is empty.
            (x509.SubjectAlternativeName(names), True),
            *_list_of(term),
        ],
        not_before=term.not_before,
        not_after=term.not_after,
    )


def issue_tls_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    spki: bytes,
    vouched: Vouched,
    dns: Sequence[str],
    key_class: KeyClass,
    term: Term,
) -> bytes:
    """Write the certificate (DER) of a key that a host answers, or asks, TLS with."""
    names = [
        *(x509.DNSName(name) for name in dns),
        _permanent(vouched.host),
        x509.UniformResourceIdentifier(_KEY + key_class),
        x509.UniformResourceIdentifier(vouched.urn),
    ]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return issue_leaf(
        ca_key,
        ca_certificate,
        spki=spki,
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, vouched.host)]),
        use="sign",
        extensions=[
            (x509.ExtendedKeyUsage(purposes), False),
            (x509.SubjectAlternativeName(names), False),
            *_list_of(term),
        ],
        not_before=term.not_before,
        not_after=term.not_after,
    )


def issue_server_certificate(
    ca_key: ec.EllipticCurvePrivateKey,
    ca_certificate: bytes,
    *,
    spki: bytes,
    names: Sequence[str],
    term: Term,
) -> bytes:
    """Write the certificate (DER) of a server of the authority's own, which no TPM speaks for.

    ``names`` are DNS names and IP addresses.
    """
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_place(name) for name in names]), True),
        *_list_of(term),
    ]
    return issue_leaf(
        ca_key,
        ca_certificate,
        spki=spki,
        subject=x509.Name([]),
        use="sign",
        extensions=extensions,
        not_before=term.not_before,
        not_after=term.not_after,
    )


def _place(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def vouched_in(certificate: bytes) -> Vouched:
    """Read what an AK certificate of such an authority says of its host; else it is `Malformed`."""
    try:
        extensions = read_certificate(certificate).extensions
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise Malformed("not an AK certificate") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    sources = [found for uri in uris if (found := _SOURCE.fullmatch(uri))]
    eks = [uri.removeprefix(_EK) for uri in uris if uri.startswith(_EK)]
    others = list(names.get_values_for_type(x509.OtherName))
    if list(purposes) != [AK_PURPOSE] or not len(sources) == len(eks) == len(others) == 1:
        raise Malformed("not an AK certificate that names one host and its enrolment")
    try:
        (held,) = elements(others[0].value)
        vouched = Vouched(
            host=content_of(held).decode(),
            ek_spki=base64.b64decode(eks[0], validate=True).hex(),
            source="enrolment" if sources[0]["source"] == "enrolment" else "enrolment-request",
            digest=sources[0]["digest"],
        )
    except ValueError as error:
        raise Malformed("an AK certificate whose names cannot be read") from error
    if others[0] != _permanent(vouched.host) or vouched.ek_urn not in uris:
        raise Malformed("an AK certificate whose names are not in the form they are written in")
    return vouched


def uris_of(certificate: bytes) -> tuple[str, ...]:
    """Return the URIs among a certificate's names (RFC 5280, section 4.2.1.6)."""
    extensions = read_certificate(certificate).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def tpm_identity(ek_certificate: bytes) -> tuple[x509.NameAttribute[str | bytes], ...]:
    """Return how an EK certificate names its TPM: manufacturer, model, version."""
    try:
        extensions = read_certificate(ek_certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    directory = names.get_values_for_type(x509.DirectoryName)
    return tuple(a for entry in directory for a in entry if a.oid.dotted_string in TPM_IDENTITY)


def _permanent(host: str) -> x509.OtherName:
    value = tlv(SEQUENCE, tlv(UTF8_STRING, host.encode()))
    return x509.OtherName(_PERMANENT, value)


def _list_of(term: Term) -> list[tuple[x509.ExtensionType, bool]]:
    if term.crl_url is None:
        return []
    place = [x509.UniformResourceIdentifier(term.crl_url)]
    point = x509.DistributionPoint(place, relative_name=None, reasons=None, crl_issuer=None)
    return [(x509.CRLDistributionPoints([point]), False)]
