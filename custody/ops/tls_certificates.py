"""Certificates for TLS that an attestation authority issues.  Format: hostcertificate.md.

Those of hosts rest on the word of an AK that the authority certified before; those of its own
servers on nothing but itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from custody.crypto.certificates import (
    certificate_signed_by,
    read_certificate,
    read_csr,
    spki_of,
)
from custody.crypto.host_certificates import (
    Term,
    issue_server_certificate,
    issue_tls_certificate,
    uris_of,
    vouched_in,
)
from custody.crypto.signature import load_ec_public, public_bytes
from custody.encoding import KeyId, encode, key_id
from custody.errors import Malformed, Refused
from custody.formats.evidence import AK_TEMPLATE
from custody.formats.hostcertificate import DnsName, TlsRequest
from custody.ops.attestation_ca import (
    Issued,
    check_not_revoked,
    revoked_serials,
    term_of,
    vouched_by,
)
from custody.ops.authority import Authority, issued_here, keep_issued
from custody.ops.home import Home
from custody.ops.landing import write_new_file
from custody.ops.pem import certificate_pem
from custody.rules.tls_request import check_tls_request
from custody.rules.verdicts import require

#: As long as an AK's: what is replaced as often is known to work when it must be replaced.
TLS_LIFE = timedelta(days=30)
#: A server that runs on is started anew within the year, with a new key.
SERVER_LIFE = timedelta(days=397)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKey:
    """What a TLS server answers with; ``key_id`` is what its clients may pin."""

    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    key_id: KeyId


# ── hosts ────────────────────────────────────────────────────────────────────────────────────────


def issue_tls(
    authority: Authority,
    request: TlsRequest,
    *,
    ak_certificate: bytes,
    dns: Sequence[str],
    now: datetime,
    life: timedelta = TLS_LIFE,
) -> Issued:
    """Certify a host's TLS key, by the AK certificate of this authority that is in force.

    ``dns`` are the names its operator approves: each of them the host has asked for.  A request is
    good for one certificate.
    """
    _check_in_force(authority, ak_certificate, now=now)
    # Another certificate of the same AK may be the one that was revoked.
    check_not_revoked(authority, spki_of(ak_certificate))
    vouched = vouched_in(ak_certificate)
    ak_public = _ak_public(ak_certificate)
    verdicts = check_tls_request(request, ak_public=ak_public, host=vouched.host, now=now)
    require(verdicts)
    if unasked := sorted(set(dns) - set(request.dns)):
        raise Refused(f"the host has not asked for {', '.join(unasked)}", check="tls.names")
    if not dns:
        raise Refused("a certificate for TLS has at least one DNS name", check="tls.names")
    key = read_csr(request.csr).spki
    check_not_revoked(authority, key)
    used = authority.home.folder("tls-requests") / f"{request.digest()}.json"
    with authority.home.lock():
        if used.exists():
            raise Refused("this request has had its certificate", check="tls.repeated")
        der = issue_tls_certificate(
            authority.key,
            authority.certificate,
            spki=key,
            vouched=vouched,
            dns=tuple(dict.fromkeys(dns)),
            key_class=request.key_class,
            term=_ending_with(ak_certificate, term_of(authority, now=now, life=life)),
        )
        write_new_file(used, encode(request), mode=0o600)
        keep_issued(authority, der)
    return Issued(der=der, vouched=vouched, verdicts=verdicts, key_class=request.key_class)


def _ending_with(ak_certificate: bytes, term: Term) -> Term:
    # What rests on the AK's word does not outlive it.
    end = read_certificate(ak_certificate).not_valid_after_utc
    return replace(term, not_after=min(term.not_after, end))


def resting_on(home: Home, revoked: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the TLS certificates this home issued on the word of an AK among those ``revoked``.

    They rest on the AK, not on one of its certificates: those by its others are found too.  What is
    on the list already, or among ``revoked``, is left out.
    """
    keys = {spki_of(der) for der in revoked if vouched_by(der) is not None}
    issued = issued_here(home)
    vouched = [vouched_by(der) for der in issued if spki_of(der) in keys]
    words = {one.urn for one in vouched if one is not None}
    listed = revoked_serials(home, besides=None)
    return tuple(
        der
        for der in issued
        if vouched_by(der) is None
        and words & set(uris_of(der))
        and der not in revoked
        and read_certificate(der).serial_number not in listed
    )


def _ak_public(ak_certificate: bytes) -> bytes:
    """Rebuild the AK's TPMT_PUBLIC: everything but its point is the template's."""
    point = load_ec_public(spki_of(ak_certificate)).public_numbers()
    x, y = (value.to_bytes(32, "big") for value in (point.x, point.y))
    return replace(AK_TEMPLATE, x=x, y=y).pack()


def _check_in_force(authority: Authority, ak_certificate: bytes, *, now: datetime) -> None:
    certificate = read_certificate(ak_certificate)
    if not certificate_signed_by(certificate, authority.certificate):
        raise Refused("the AK's certificate is not of this authority", check="tls.ak")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused("the AK's certificate has expired", check="tls.ak")
    if certificate.serial_number in revoked_serials(authority.home, besides=None):
        raise Refused("the AK's certificate is revoked", check="tls.ak")


# ── servers of the enroller's own ────────────────────────────────────────────────────────────────


def certify_server(authority: Authority, names: Sequence[str], *, now: datetime) -> ServerKey:
    """Make a key for a server of the enroller's own, and certify it; it is kept in memory alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    for place in names:
        _check_place(place)
    der = issue_server_certificate(
        authority.key,
        authority.certificate,
        spki=public_bytes(key.public_key()),
        names=names,
        term=term_of(authority, now=now, life=SERVER_LIFE),
    )
    keep_issued(authority, der)
    return ServerKey(
        chain_pem=certificate_pem(der),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key_id=key_id(spki_of(der)),
    )


def _check_place(place: str) -> None:
    try:
        ip_address(place)
    except ValueError:
        try:
            msgspec.convert(place, DnsName)
        except msgspec.ValidationError as error:
            raise Malformed("neither a DNS name nor an address", where=place[:80]) from error
