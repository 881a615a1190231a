"""RFC 5280 section 6 path validation, by pyhanko-certvalidator, offline and at a given moment.

And what its callers ask of one certificate: an extension, or whether another issued it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from custody.crypto.certificates import read_certificate
from custody.errors import Malformed

T = TypeVar("T")
E = TypeVar("E", bound=x509.ExtensionType)

#: The checks that judge revocation lists, in order.
CRL_CHECKS = ("crl.found", "crl.number", "crl.fresh")


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    """Return an extension's value, None where the certificate has no such extension."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def issued_by(certificate: bytes, issuer: bytes) -> bool:
    """Tell whether one DER certificate names and is signed by another, by any algorithm."""
    try:
        read_certificate(certificate).verify_directly_issued_by(read_certificate(issuer))
    except (Malformed, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def walk_path(
    der: bytes, authority: bytes, crl: bytes | None, moment: datetime
) -> tuple[tuple[str, ...], str]:
    """Walk the path authority → certificate at ``moment``, with the authority's newest list.

    Returns ``((), "")`` when it is good, else the checks that say the same and the reason.
    """
    return walk_chain((authority, der), () if crl is None else (crl,), moment)


def walk_chain(
    chain: Sequence[bytes],
    crls: Sequence[bytes],
    moment: datetime,
    *,
    revocation: Literal["require", "soft-fail"] = "require",
) -> tuple[tuple[str, ...], str]:
    """Walk a path of DER certificates, from a trusted authority to a leaf, as `walk_path` does.

    By ``soft-fail`` a certificate without a revocation list is good.
    """
    return _walk(tuple(chain), tuple(crls), moment, revocation)


# The same path is walked for each request, and for each approval of it: once for a moment and a
# set of lists is enough, because nothing else goes in.
@lru_cache(maxsize=1024)
def _walk(
    chain: tuple[bytes, ...],
    crls: tuple[bytes, ...],
    moment: datetime,
    revocation: Literal["require", "soft-fail"],
) -> tuple[tuple[str, ...], str]:
    # Imported here because it costs 0.1 s, a tenth of it sockets and TLS that nothing here uses.
    from asn1crypto import x509 as asn1  # noqa: PLC0415
    from pyhanko_certvalidator import ValidationContext  # noqa: PLC0415
    from pyhanko_certvalidator import errors as walk_errors  # noqa: PLC0415
    from pyhanko_certvalidator.authority import CertTrustAnchor  # noqa: PLC0415
    from pyhanko_certvalidator.path import ValidationPath  # noqa: PLC0415
    from pyhanko_certvalidator.validate import async_validate_path  # noqa: PLC0415

    stops: tuple[tuple[type[Exception], tuple[str, ...]], ...] = (
        (walk_errors.RevokedError, ("certificate.revoked",)),
        (walk_errors.ExpiredError, ("certificate.validity",)),
        (walk_errors.NotYetValidError, ("certificate.validity",)),
        (walk_errors.InsufficientRevinfoError, CRL_CHECKS),
    )
    try:
        anchor, *above, leaf = (asn1.Certificate.load(der, strict=True) for der in chain)
        context = ValidationContext(
            trust_roots=[anchor],
            moment=moment,
            allow_fetching=False,
            crls=list(crls),
            revocation_mode=revocation,
            retroactive_revinfo=True,
            time_tolerance=timedelta(0),
        )
        # The path is given, not searched for: it begins at an authority the caller trusts.
        path = ValidationPath(CertTrustAnchor(anchor), above, leaf)
        _finish(async_validate_path(context, path))
    except (
        walk_errors.ValidationError,
        walk_errors.PathError,
        walk_errors.CRLValidationError,
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
    ) as error:
        stop = next((checks for kind, checks in stops if isinstance(error, kind)), ())
        words = "".join(c for c in str(error) if c.isprintable())[:240].removesuffix(".")
        if words[1:2].islower():
            words = words[0].lower() + words[1:]
        return stop, words or type(error).__name__
    return (), ""


def _finish(walk: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits.

    With nothing to fetch the validator never suspends, so it needs no event loop, and rules work
    the same whether or not their caller runs one.  One that does suspend is a fault of ours.
    """
    try:
        walk.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    walk.close()
    raise AssertionError("internal: path validation wanted to wait")
