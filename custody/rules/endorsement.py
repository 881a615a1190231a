"""Is this the endorsement key of a TPM somebody approved, and does this AK go with it?

Source: TCG EK Credential Profile 2.5, section 3; RFC 5280 section 6 for the path.  A vendor's chain
alone is any TPM in the world, so the key must also be on the inventory.  That AK and EK are one
TPM is not shown here but by the credential challenge (ops/challenges).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from custody.crypto.certificates import crl_issued_by, read_certificate, spki_of
from custody.crypto.host_certificates import TPM_IDENTITY
from custody.encoding import Digest, KeyId, Name, key_id
from custody.errors import Malformed, Refused
from custody.formats.enrolment import EnrolmentRequest, FirmwareVersion
from custody.formats.evidence import (
    AK_TEMPLATE,
    EccPublic,
    RsaPublic,
    ek_public,
    matches,
    parse_attest,
    parse_public,
    unpack_quote,
)
from custody.rules.attested import is_endorsed, is_over, read_attested
from custody.rules.certificate_path import extension, issued_by, walk_chain
from custody.rules.certificates import Lists, check_revocation
from custody.rules.verdicts import Ledger, Verdict

#: id-tcg-kp-EKCertificate.
EK_PURPOSE = ObjectIdentifier("2.23.133.8.1")

_SUBJECT = "EK certificate"
_ISSUER = "issuer of the EK certificate"
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorLists:
    """Vendors' revocation lists, as people's are judged.

    ``demanded`` are the vendor roots, by key id, below which every certificate needs a fresh list
    of its issuer.  Of other vendors only what a list says of a certificate counts.
    """

    crls: tuple[bytes, ...]
    demanded: Collection[KeyId]
    floor: Mapping[KeyId, int]
    max_age: timedelta


#: For who demands no lists and has none.
NO_LISTS = VendorLists(crls=(), demanded=(), floor={}, max_age=timedelta(0))


def check_endorsement(
    request: EnrolmentRequest,
    *,
    roots: Sequence[bytes],
    lists: VendorLists,
    inventory: Collection[Digest],
    now: datetime,
) -> tuple[Verdict, ...]:
    """Judge the EK certificate of an enrolment request.

    ``roots`` are the certificates (DER) of vendors that are trusted: a policy's, or those of an
    authority that has no policy.  ``inventory`` holds the SHA-256 of every approved EK's
    SubjectPublicKeyInfo: taking an EK off it withdraws it, whatever its vendor says.
    """
    ledger = Ledger(subject=_SUBJECT)
    der = request.ek_certificate
    try:
        certificate = read_certificate(der)
        spki = spki_of(der)
    except Malformed as error:
        ledger.add("endorsement.certificate", False, error.reason)
        return ledger.done()
    ledger.add("endorsement.certificate", True, "parses strictly")
    digest = key_id(spki)
    ledger.add(
        "endorsement.inventory",
        digest in inventory,
        f"EK {digest[:16]}… is on the inventory",
        otherwise=f"EK {digest} is not on the inventory",
    )
    try:
        template = parse_public(ek_public(spki))
    except (Malformed, Refused) as error:
        ledger.add("endorsement.key", False, error.reason)
        return ledger.done()
    ledger.add("endorsement.key", True, "the EK follows a TCG template")
    _check_extensions(certificate, ledger, is_rsa=isinstance(template, RsaPublic))
    chain = _check_chain(request, roots, now, ledger)
    if chain:
        _check_lists(chain, lists, now, ledger)
    else:
        ledger.skip("endorsement.revoked", "there is no path to judge by lists")
    return ledger.done()


def vendor_chain(request: EnrolmentRequest, roots: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return vendor root, intermediates and EK certificate; no such path is `Refused`."""
    return _find_chain(request.ek_certificate, request.ek_intermediates, roots)


def check_listed_name(request: EnrolmentRequest, *, listed: Name | None) -> tuple[Verdict, ...]:
    """Judge the name a host goes by: the inventory's for its TPM, where that has one."""
    ledger = Ledger(subject=f"name of {request.host}")
    if listed is None:
        ledger.skip("enrolment.name", "the inventory does not name this TPM's host")
    else:
        ledger.add(
            "enrolment.name",
            request.host == listed,
            "the inventory's",
            otherwise=f"the inventory has this TPM as the one of {listed}",
        )
    return ledger.done()


def check_attestation_key(request: EnrolmentRequest) -> tuple[Verdict, ...]:
    """Judge the AK an enrolment request offers, and its quote over the request itself."""
    ledger = Ledger(subject=f"AK of {request.host}")
    with ledger.failing("enrolment.ak"):
        public = parse_public(request.ak_public)
        # An unrestricted key would sign whatever attestation its owner invents.
        ledger.add(
            "enrolment.ak",
            isinstance(public, EccPublic) and matches(public, AK_TEMPLATE),
            "a restricted signing key, attributes exact",
            otherwise="not the restricted template",
        )
    with ledger.failing("enrolment.quote"):
        attest = read_attested(request.ak_public, unpack_quote(request.quote))
        ledger.add("enrolment.quote", True, "the AK's signature is good")
        ledger.add(
            "enrolment.bound",
            is_over(attest, request.qualifying()),
            "the quote is over this host, EK and AK",
            otherwise="the quote is over another enrolment",
        )
        ledger.add(
            "enrolment.signer",
            is_endorsed(attest, request.ak_public),
            "the AK is a primary key of the endorsement hierarchy",
            otherwise="the AK is not in the endorsement hierarchy",
        )
    return ledger.done()


def firmware_of(request: EnrolmentRequest) -> FirmwareVersion:
    """Return the firmware version the TPM reports in its quote (16 hex digits)."""
    return f"{parse_attest(unpack_quote(request.quote).attest).firmware_version:016x}"


def _check_extensions(certificate: x509.Certificate, ledger: Ledger, *, is_rsa: bool) -> None:
    constraints = extension(certificate, x509.BasicConstraints)
    ledger.add(
        "endorsement.ca",
        constraints is not None and not constraints.ca,
        "not an authority",
        otherwise="is an authority, or does not say that it is none",
    )
    usage = extension(certificate, x509.KeyUsage)
    ledger.add(
        "endorsement.usage",
        usage is not None and (usage.key_encipherment if is_rsa else usage.key_agreement),
        "its key receives secrets",
        otherwise="its key usage is not key encipherment (RSA) or key agreement (EC)",
    )
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    ledger.add(
        "endorsement.purpose",
        purposes is not None and EK_PURPOSE in purposes,
        "issued for an endorsement key",
        otherwise=f"lacks the purpose {EK_PURPOSE.dotted_string}",
    )
    ledger.add(
        "endorsement.identity",
        _identity(certificate) >= TPM_IDENTITY,
        "names manufacturer, model and version of the TPM",
        otherwise="does not name manufacturer, model and version of the TPM",
    )


def _identity(certificate: x509.Certificate) -> frozenset[str]:
    names = extension(certificate, x509.SubjectAlternativeName)
    directory = names.get_values_for_type(x509.DirectoryName) if names is not None else []
    return frozenset(a.oid.dotted_string for entry in directory for a in entry)


def _check_chain(
    request: EnrolmentRequest, roots: Sequence[bytes], now: datetime, ledger: Ledger
) -> tuple[bytes, ...]:
    """Judge the path from a vendor root; return it, or nothing where it is not good."""
    try:
        chain = vendor_chain(request, roots)
    except Refused as error:
        ledger.add("endorsement.chain", False, error.reason)
        return ()
    fault = _walk(chain, now)
    good = ledger.add(
        "endorsement.chain",
        not fault,
        "a good path from a vendor root that is trusted",
        otherwise=f"its path from a vendor root is not good: {fault}",
    )
    return chain if good else ()


def _check_lists(
    chain: tuple[bytes, ...], lists: VendorLists, now: datetime, ledger: Ledger
) -> None:
    """Judge each certificate below the root by its issuer's lists, where they are here."""
    demanded = key_id(spki_of(chain[0])) in lists.demanded
    asked = Lists(
        crls=lists.crls,
        crl_floor=lists.floor,
        crl_max_age=lists.max_age,
        moment=now,
        signed_by=crl_issued_by,
    )
    for issuer, der in pairwise(chain):
        subject = _SUBJECT if der == chain[-1] else _ISSUER
        judged = check_revocation(der, issuer, lists=asked)
        if not demanded and judged[0].outcome == "fail":
            ledger.extend([_told(subject, "the policy demands no list of this vendor's")])
            continue
        for verdict in judged:
            # A vendor's list that nobody demanded revokes, but need not be the newest.
            if demanded or verdict.check == "certificate.revoked":
                check = verdict.check.replace("certificate.", "endorsement.")
                ledger.extend([replace(verdict, check=check, subject=subject)])


def _told(subject: str, reason: str) -> Verdict:
    return Verdict(
        check="endorsement.revoked", outcome="not-applicable", reason=reason, subject=subject
    )


def _find_chain(
    leaf: bytes, intermediates: Sequence[bytes], roots: Sequence[bytes]
) -> tuple[bytes, ...]:
    """Find root, intermediates and leaf, in that order, each signed by the one before it."""
    chain: tuple[bytes, ...] = (leaf,)
    for _ in range(_MAX_DEPTH):
        root = next((der for der in roots if issued_by(chain[0], der)), None)
        if root is not None:
            return (root, *chain)
        above = next(
            (der for der in intermediates if der not in chain and issued_by(chain[0], der)), None
        )
        if above is None:
            break
        chain = (above, *chain)
    raise Refused("no vendor root that is trusted issued it", check="endorsement.chain")


def _walk(chain: tuple[bytes, ...], moment: datetime) -> str:
    """Validate a path at ``moment`` by RFC 5280 section 6; return what is wrong, or nothing."""
    _, fault = walk_chain(chain, (), moment, revocation="soft-fail")
    if fault:
        return fault
    # RFC 5280 leaves the anchor's own dates to its user; an expired root is not ours.
    root = read_certificate(chain[0])
    if not root.not_valid_before_utc <= moment <= root.not_valid_after_utc:
        return "the vendor root is not valid at this time"
    return ""
