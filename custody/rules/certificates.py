"""Whether the certificate of a listed key is good at a moment.

A certificate adds validity and revocation to a key the policy lists, never a key: what is judged
is a SubjectPublicKeyInfo the caller already believes, and trust starts at the authorities the
policy names.  The path is walked by `certificate_path`; every other check is here and has an id of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID

from custody.crypto.certificates import (
    Revocation,
    Use,
    certificate_signed_by,
    crl_number,
    crl_signed_by,
    keeps_expired_since,
    read_certificate,
    read_crl,
    revocations_of,
    spki_of,
)
from custody.encoding import KeyId, format_time, key_id
from custody.errors import Malformed
from custody.rules.certificate_path import CRL_CHECKS, extension, walk_path
from custody.rules.verdicts import Ledger, Verdict, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A complete revocation list that an authority signed.  ``issuer`` is the authority's key id.

    What the list says about one certificate, and whether it is fresh, is judged per certificate.
    """

    issuer: KeyId
    number: int
    this_update: datetime
    next_update: datetime
    keeps_expired_since: datetime | None
    content: bytes = field(repr=False)
    entries: Mapping[int, Revocation] = field(repr=False)
    der: bytes = field(repr=False)


#: Tells whether a list is an authority's (a DER certificate).
SignedBy = Callable[[x509.CertificateRevocationList, bytes], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Revocation lists, and what they are judged by.

    ``crls`` may hold anything.  ``crl_floor`` gives the newest number remembered per authority key
    id.
    """

    crls: tuple[bytes, ...]
    crl_floor: Mapping[KeyId, int]
    crl_max_age: timedelta
    moment: datetime
    signed_by: SignedBy = crl_signed_by


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question(Lists):
    """What `check_certificate` was asked, beside the key and its certificates."""

    use: Use
    principal: str
    authorities: tuple[bytes, ...]


def check_revocation(certificate: bytes, authority: bytes, *, lists: Lists) -> tuple[Verdict, ...]:
    """Judge a certificate by its issuer's lists alone: found, number, age, and what they say.

    That ``authority`` issued the certificate (both DER), and may be believed, is for the caller.
    """
    ledger = Ledger()
    _check_lists(read_certificate(certificate), authority, lists, ledger)
    return ledger.done()


def read_revocation_lists(
    ders: Sequence[bytes], *, authorities: Sequence[bytes], signed_by: SignedBy = crl_signed_by
) -> tuple[RevocationList, ...]:
    """Read the lists that one of the ``authorities`` (DER certificates) signed, oldest first.

    Malformed lists and lists of strangers are left out: whoever can write to a folder could
    otherwise stop every decision by adding one.  The highest ``number`` per issuer is what a
    caller remembers for ``crl_floor``.
    """
    lists = {
        (found.issuer, found.der): found
        for authority in authorities
        for der in ders
        if isinstance(found := _read_list(der, authority, signed_by), RevocationList)
    }
    return tuple(sorted(lists.values(), key=lambda crl: (crl.issuer, crl.number, crl.der)))


def check_certificate(
    spki: bytes,
    *,
    use: Use,
    principal: str,
    certificates: Sequence[bytes],
    authorities: Sequence[bytes],
    crls: Sequence[bytes],
    crl_floor: Mapping[KeyId, int],
    crl_max_age_seconds: int,
    moment: datetime,
) -> tuple[Verdict, ...]:
    """Judge whether some certificate of the key ``spki`` (DER) is good at ``moment``.

    ``certificates`` and ``crls`` may hold anything, ``authorities`` are the policy's.
    ``crl_floor`` gives the newest list number remembered per authority key id.  A list issued
    after the moment counts; a revocation dated after it is told, and undoes nothing signed before.
    """
    question = _Question(
        use=use,
        principal=principal,
        authorities=tuple(authorities),
        crls=tuple(crls),
        crl_floor=crl_floor,
        crl_max_age=timedelta(seconds=crl_max_age_seconds),
        moment=moment,
    )
    candidates, malformed = _certificates_of(spki, certificates)
    if not candidates:
        ledger = Ledger(subject=f"certificate of {principal}")
        reason = f"no certificate here is for key {key_id(spki)[:16]}…"
        if malformed:
            reason += f" ({malformed} could not be read)"
        ledger.add("certificate.found", False, reason)
        return ledger.done()
    judged = [_judge(der, question) for der in candidates]
    # A key is revoked when one of its certificates is: a thief would show the other one.
    for verdicts in judged:
        if _proven_revoked(verdicts):
            return verdicts
    return next((verdicts for verdicts in judged if passed(verdicts)), judged[-1])


def _certificates_of(spki: bytes, certificates: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Return the certificates of exactly this key, by first day, and how many were unreadable."""
    found: dict[bytes, datetime] = {}
    malformed = 0
    for der in certificates:
        try:
            if spki_of(der) == spki:
                found[der] = read_certificate(der).not_valid_before_utc
        except Malformed:
            malformed += 1
    return sorted(found, key=lambda der: (found[der], der)), malformed


def _proven_revoked(verdicts: Sequence[Verdict]) -> bool:
    # `certificate.revoked` is only ever judged after an authority of the policy was found to have
    # signed both certificate and list, so a stranger's certificate cannot revoke anybody's key.
    return any(v.check == "certificate.revoked" and v.outcome == "fail" for v in verdicts)


def _judge(der: bytes, question: _Question) -> tuple[Verdict, ...]:
    certificate = read_certificate(der)
    ledger = Ledger(subject=f"certificate of {question.principal}")
    ledger.add("certificate.found", True, f"serial {certificate.serial_number:x}")
    authority, fault = _issuer(certificate, question)
    if authority is None:
        ledger.add("certificate.path", False, fault)
    _check_usage(certificate, question.use, ledger)
    _check_subject(certificate, question.principal, ledger)
    _check_validity(certificate, question.moment, ledger)
    if authority is None:
        for check in (*CRL_CHECKS, "certificate.revoked"):
            ledger.skip(check, "no authority of the policy issued the certificate")
        return ledger.done()
    newest = _check_lists(certificate, authority, question, ledger)
    _check_path(der, authority, newest, question.moment, ledger)
    return ledger.done()


def _issuer(certificate: x509.Certificate, question: _Question) -> tuple[bytes | None, str]:
    """Return the policy's authority that issued a certificate, or why there is none."""
    fault = "issued by no authority of the policy"
    for der in question.authorities:
        try:
            authority = read_certificate(der)
        except Malformed as error:
            fault = f"an authority of the policy could not be read: {error.reason}"
            continue
        if authority.subject != certificate.issuer:
            continue
        if not certificate_signed_by(certificate, der):
            fault = "not signed by the authority it names, or not by ECDSA with SHA-2"
            continue
        fault = _authority_fault(authority, question.moment)
        if not fault:
            return der, ""
    return None, fault


def _authority_fault(authority: x509.Certificate, moment: datetime) -> str:
    # Validators take a trust anchor as it is; ours has to be a certificate authority, in time.
    constraints = extension(authority, x509.BasicConstraints)
    usage = extension(authority, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        return "the issuer is no certificate authority"
    if usage is None or not (usage.key_cert_sign and usage.crl_sign):
        return "the authority may not sign certificates and revocation lists"
    if not authority.not_valid_before_utc <= moment <= authority.not_valid_after_utc:
        return f"the authority was not valid at {format_time(moment)}"
    return ""


def _check_usage(certificate: x509.Certificate, use: Use, ledger: Ledger) -> None:
    usage = extension(certificate, x509.KeyUsage)
    constraints = extension(certificate, x509.BasicConstraints)
    fault = ""
    if usage is None:
        fault = "does not say what its key may do"
    elif usage.key_cert_sign or usage.crl_sign or (constraints is not None and constraints.ca):
        fault = "is an authority's, not a principal's"
    # Key roles never share a key, so a certificate for both uses is for neither.
    elif (usage.digital_signature, _opens(certificate, usage)) != (use == "sign", use == "share"):
        fault = f"its key is not for use {use!r} alone"
    else:
        extended = extension(certificate, x509.ExtendedKeyUsage)
        allowed = {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
        if use == "sign":
            allowed.add(ExtendedKeyUsageOID.CODE_SIGNING)
        if extended is not None and not allowed & set(extended):
            fault = "is restricted to purposes that are none of ours"
    ledger.add("certificate.usage", not fault, f"for use {use!r}", otherwise=fault)


def _opens(certificate: x509.Certificate, usage: x509.KeyUsage) -> bool:
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5:
        return usage.key_encipherment
    return usage.key_agreement


def _check_subject(certificate: x509.Certificate, principal: str, ledger: Ledger) -> None:
    names = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    ledger.add(
        "certificate.subject",
        names == [principal],
        f"names {principal}",
        otherwise=f"does not name {principal}, and only {principal}",
    )


def _check_validity(certificate: x509.Certificate, moment: datetime, ledger: Ledger) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    span = f"from {format_time(start)} to {format_time(end)}"
    ledger.add(
        "certificate.validity",
        start <= moment <= end,
        f"valid {span}",
        otherwise=f"valid {span}, not at {format_time(moment)}",
    )


def _check_lists(
    certificate: x509.Certificate, authority: bytes, question: Lists, ledger: Ledger
) -> RevocationList | None:
    """Judge the authority's lists and the certificate by them; return the newest list."""
    read = [_read_list(der, authority, question.signed_by) for der in question.crls]
    lists = sorted(
        (found for found in read if isinstance(found, RevocationList)), key=lambda crl: crl.number
    )
    if not lists:
        faults = [found for found in read if isinstance(found, str)]
        reason = "no revocation list of the authority is here"
        ledger.add("crl.found", False, f"{reason} ({faults[-1]})" if faults else reason)
        for check in (*CRL_CHECKS[1:], "certificate.revoked"):
            ledger.skip(check, reason)
        return None
    newest = lists[-1]
    ledger.add("crl.found", True, f"revocation list {newest.number}")
    _check_number(lists, question, ledger)
    _check_fresh(certificate, newest, question, ledger)
    _check_revoked(certificate, lists, question.moment, ledger)
    return newest


def _check_number(lists: Sequence[RevocationList], question: Lists, ledger: Ledger) -> None:
    newest = lists[-1]
    floor = question.crl_floor.get(newest.issuer, 0)
    contents = {(crl.number, crl.content) for crl in lists}
    # The signed content is compared, not the file: anybody can turn an ECDSA signature into
    # another valid one and so make one list look like two.
    if len(contents) != len({number for number, _ in contents}):
        ledger.add("crl.number", False, "the authority signed two lists of one number")
        return
    ledger.add(
        "crl.number",
        newest.number >= floor,
        f"list {newest.number} is not older than remembered",
        otherwise=f"list {newest.number} is older than list {floor}, seen before",
    )


def _check_fresh(
    certificate: x509.Certificate, newest: RevocationList, question: Lists, ledger: Ledger
) -> None:
    moment, issued = question.moment, newest.this_update
    kept, expiry = newest.keeps_expired_since, certificate.not_valid_after_utc
    if issued > expiry and (kept is None or kept > expiry):
        # RFC 5280 section 3.3: such a list may have dropped the entry that mattered.
        ledger.add("crl.fresh", False, "issued after the certificate expired, may be silent on it")
    elif issued > moment:
        ledger.add("crl.fresh", True, f"issued {format_time(issued)}, after the moment judged")
    else:
        ledger.add(
            "crl.fresh",
            moment <= newest.next_update and moment - issued <= question.crl_max_age,
            f"issued {format_time(issued)}",
            otherwise=f"issued {format_time(issued)}, due again {format_time(newest.next_update)}: "
            f"too old at {format_time(moment)}",
        )


def _check_revoked(
    certificate: x509.Certificate, lists: Sequence[RevocationList], moment: datetime, ledger: Ledger
) -> None:
    # Any list the authority ever signed can revoke: a newer one that forgot an entry, by mistake
    # or under duress, does not bring a key back.
    serial = certificate.serial_number
    entries = [crl.entries[serial] for crl in lists if serial in crl.entries]
    if not entries:
        reason = f"not on revocation list {lists[-1].number}"
        ledger.add("certificate.revoked", True, reason)
        return
    first = min(entries, key=lambda entry: entry.revoked_at)
    when = f"revoked at {format_time(first.revoked_at)} ({first.reason})"
    ledger.add(
        "certificate.revoked",
        first.revoked_at > moment,
        f"{when}, after the moment judged",
        otherwise=when,
    )


def _check_path(
    der: bytes, authority: bytes, newest: RevocationList | None, moment: datetime, ledger: Ledger
) -> None:
    stop, reason = walk_path(der, authority, newest.der if newest else None, moment)
    failed = {verdict.check for verdict in ledger.failed}
    if not reason:
        ledger.add("certificate.path", True, "issued by an authority of the policy")
    elif failed & set(stop):
        # The walk ends at the first fault; where that fault has its own verdict, it is not
        # counted twice.  The list has failed either way.
        ledger.skip("certificate.path", f"the walk ended early: {reason}")
    else:
        ledger.add("certificate.path", False, reason)


@lru_cache(maxsize=256)
def _read_list(
    der: bytes, authority: bytes, signed_by: SignedBy = crl_signed_by
) -> RevocationList | str:
    """Read a list if ``authority`` signed it, else return why it does not count."""
    try:
        crl = read_crl(der)
        if not signed_by(crl, authority):
            return "a list here is not signed by it"
        next_update = crl.next_update_utc
        if next_update is None:
            return "a list here never ends"
        return RevocationList(
            issuer=key_id(spki_of(authority)),
            number=crl_number(crl),
            this_update=crl.last_update_utc,
            next_update=next_update,
            keeps_expired_since=keeps_expired_since(crl),
            content=crl.tbs_certlist_bytes,
            entries={entry.serial: entry for entry in revocations_of(crl)},
            der=der,
        )
    except Malformed as error:
        return f"a list here could not be read: {error.reason}"
