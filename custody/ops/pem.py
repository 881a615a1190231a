"""Keys, certificates and revocation lists from files of other programs: PEM (RFC 7468) or DER."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from custody.crypto.der import MAX_CRL_BYTES
from custody.crypto.signature import load_ec_public
from custody.errors import Malformed
from custody.ops.files import read_file, reading

MAX_PEM_BYTES: Final = 1 << 20
#: PEM takes a third more than the DER that is in it, and line ends.
MAX_PEM_CRL_BYTES: Final = 3 * MAX_CRL_BYTES // 2

_BEGIN = b"-----BEGIN "


def read_public_key(path: Path) -> bytes:
    """Read the public key in a file; return its SubjectPublicKeyInfo (DER).

    Raises `Malformed` for anything but a key on a named curve P-256, P-384 or P-521.
    """
    with reading(path):
        data = read_file(path, max_bytes=MAX_PEM_BYTES)
        if b"PRIVATE KEY" in data:
            raise Malformed("holds a private key", hint="give the public half alone")
        if _BEGIN in data:
            try:
                key = load_pem_public_key(data)
                data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                raise Malformed("not a PEM public key") from error
        load_ec_public(data)
        return data


def read_certificates(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """Read all certificates of some files, in order; each is returned as DER, read strictly."""
    from cryptography import x509  # noqa: PLC0415 - who brings a key should not wait for it

    from custody.crypto.certificates import read_certificate  # noqa: PLC0415 - likewise

    found: list[bytes] = []
    for path in paths:
        with reading(path):
            data = read_file(path, max_bytes=MAX_PEM_BYTES)
            if _BEGIN in data:
                try:
                    loaded = x509.load_pem_x509_certificates(data)
                except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                    raise Malformed("not PEM certificates") from error
                ders = [certificate.public_bytes(Encoding.DER) for certificate in loaded]
            else:
                ders = [data]
            for der in ders:
                read_certificate(der)
            found += ders
    return tuple(found)


def read_certificate_file(path: Path) -> bytes:
    """Read the one certificate that a file holds, as `read_certificates` does."""
    found = read_certificates([path])
    if len(found) != 1:
        raise Malformed(f"holds {len(found)} certificates, not one", where=str(path))
    return found[0]


def read_csr_file(path: Path) -> bytes:
    """Read the one certificate request of a file, as DER; what it says is for `read_csr`."""
    from cryptography import x509  # noqa: PLC0415 - likewise

    with reading(path):
        data = read_file(path, max_bytes=MAX_PEM_BYTES)
        try:
            load = x509.load_pem_x509_csr if _BEGIN in data else x509.load_der_x509_csr
            return load(data).public_bytes(Encoding.DER)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Malformed("not a certificate request") from error


def certificate_pem(der: bytes) -> bytes:
    """Write a certificate as other programs like it."""
    from cryptography import x509  # noqa: PLC0415 - likewise

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def crl_pem(der: bytes) -> bytes:
    """Write a revocation list as other programs like it."""
    from cryptography import x509  # noqa: PLC0415 - likewise

    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)


def read_crls(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """Read revocation lists, one a file, as DER; what they say is for path validation."""
    from cryptography import x509  # noqa: PLC0415 - likewise

    found: list[bytes] = []
    for path in paths:
        with reading(path):
            data = read_file(path, max_bytes=MAX_PEM_CRL_BYTES)
            try:
                load = x509.load_pem_x509_crl if _BEGIN in data else x509.load_der_x509_crl
                der = load(data).public_bytes(Encoding.DER)
            except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                raise Malformed("not a revocation list") from error
            if len(der) > MAX_CRL_BYTES:
                raise Malformed(f"revocation list is larger than {MAX_CRL_BYTES} bytes")
            found.append(der)
    return tuple(found)
