"""An attestation authority: certificates for AKs and host TLS keys.  formats/hostcertificate.md.

It convinces whoever trusts this one authority, as other programs do; nothing in a release rests on
it.  Its vendor roots and its inventory are given with each command, so it needs no policy; where
there is one, the enrolment record takes the place of its own challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from custody.crypto.certificates import (
    Reason,
    certificate_signed_by,
    read_certificate,
    read_crl,
    read_csr,
    revocations_of,
    spki_of,
)
from custody.crypto.host_certificates import (
    KeyClass,
    Term,
    Vouched,
    issue_ak_certificate,
    issue_server_certificate,
    issue_tls_certificate,
    uris_of,
    vouched_in,
)
from custody.crypto.signature import load_ec_public, public_bytes
from custody.encoding import KeyId, Record, Text, decode, encode, key_id
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement
from custody.formats.evidence import AK_TEMPLATE, name, spki
from custody.formats.hostcertificate import DnsName, TlsRequest
from custody.keys.api import Token
from custody.ops.authority import (
    BACKDATE,
    Authority,
    authority_certificate,
    found_authority,
    issued_here,
    keep_issued,
    newest_crl,
)
from custody.ops.challenges import CredentialMaker, pose, use_up
from custody.ops.enroll import ek_digest
from custody.ops.folders import read_file, reading
from custody.ops.home import Home
from custody.ops.inventory import Inventory
from custody.ops.keys import TokenRandom
from custody.ops.landing import write_new_file
from custody.ops.pem import certificate_pem
from custody.rules.endorsement import (
    NO_LISTS,
    check_attestation_key,
    check_endorsement,
    check_listed_name,
)
from custody.rules.request import check_enrolment
from custody.rules.situation import Situation
from custody.rules.tls_request import check_tls_request
from custody.rules.verdicts import Verdict, require

#: A month: what is replaced as often is known to work when it must be replaced.
AK_LIFE = timedelta(days=30)
TLS_LIFE = timedelta(days=30)
MAX_LIFE = timedelta(days=397)
#: A server that runs on is started anew within the year, with a new key.
SERVER_LIFE = timedelta(days=397)

_SETTINGS = "attestation-ca.json"
_MAX_BYTES = 1 << 20


class CaSettings(Record, frozen=True, kw_only=True):
    """What an attestation authority's home says of it beside its certificate."""

    kind: Literal["custody/attestation-ca/v1"]
    name: Text
    token: Text
    crl_url: Text | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate (DER), and the checks it was issued after."""

    der: bytes = field(repr=False)
    vouched: Vouched
    verdicts: tuple[Verdict, ...]
    key_class: KeyClass | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKey:
    """What a TLS server answers with; ``key_id`` is what its clients may pin."""

    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What an authority without a policy believes: vendors, and EKs that somebody approved."""

    roots: Sequence[bytes] = field(repr=False)
    inventory: Inventory
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    """Vendors' revocation lists: what is on one is refused."""


def found(
    home: Home, token: Token, *, token_uri: str, name: str, crl_url: str | None, now: datetime
) -> bytes:
    """Make an authority's key in the token; returns its certificate (DER)."""
    path = home.path / _SETTINGS
    settings = CaSettings(
        kind="custody/attestation-ca/v1", name=name, token=token_uri, crl_url=crl_url
    )
    if path.exists() and settings_of(home) != settings:
        raise Refused("this home keeps another authority", check="home.taken", where=str(home.path))
    certificate = found_authority(home, token, name=name, now=now)
    if not path.exists():
        write_new_file(path, encode(settings), mode=0o600)
    return certificate


def settings_of(home: Home) -> CaSettings:
    """Return what the home says of its authority; none here: `Incomplete`."""
    path = home.path / _SETTINGS
    if not path.exists():
        raise Incomplete(
            "this home has no attestation authority",
            missing=("an attestation authority",),
            where=str(home.path),
            hint="custody enroller ca init makes one",
        )
    with reading(path):
        return decode(CaSettings, read_file(path, max_bytes=_MAX_BYTES))


# ── attestation keys ─────────────────────────────────────────────────────────────────────────────


def judge(request: EnrolmentRequest, *, accepted: Accepted, now: datetime) -> tuple[Verdict, ...]:
    """Judge a host's enrolment request by what this authority accepts."""
    return (
        *check_endorsement(
            request,
            roots=accepted.roots,
            lists=replace(NO_LISTS, crls=accepted.crls),
            inventory=accepted.inventory,
            now=now,
        ),
        *check_listed_name(request, listed=accepted.inventory.get(ek_digest(request))),
        *check_attestation_key(request),
    )


def challenge_host(
    home: Home,
    request: EnrolmentRequest,
    *,
    accepted: Accepted,
    make_credential: CredentialMaker,
    now: datetime,
    token_random: TokenRandom | None = None,
) -> Challenge:
    """Challenge a host in the authority's name; `Refused` with the first check that fails."""
    require(judge(request, accepted=accepted, now=now))
    return pose(
        home,
        request,
        challenger=key_id(spki_of(authority_certificate(home))),
        make_credential=make_credential,
        now=now,
        token_random=token_random,
    )


def issue_ak(
    authority: Authority,
    request: EnrolmentRequest,
    given: Answer,
    *,
    accepted: Accepted,
    now: datetime,
    life: timedelta = AK_LIFE,
) -> Issued:
    """Certify the AK of a host whose answer is right.  The challenge is used up either way."""
    verdicts = judge(request, accepted=accepted, now=now)
    require(verdicts)
    challenger = key_id(spki_of(authority.certificate))
    use_up(authority.home, request.digest(), given, challenger=challenger, now=now)
    vouched = Vouched(
        host=request.host,
        ek_spki=ek_digest(request),
        source="enrolment-request",
        digest=request.digest(),
    )
    return _issue_ak(
        authority,
        ak_public=request.ak_public,
        ek_certificate=request.ek_certificate,
        vouched=vouched,
        verdicts=verdicts,
        term=_term(authority, now=now, life=life),
    )


def issue_ak_of_record(
    authority: Authority,
    record: Statement[EnrolmentRecord],
    *,
    situation: Situation,
    life: timedelta = AK_LIFE,
) -> Issued:
    """Certify the AK of an enrolment record that counts, with no challenge of our own."""
    verdicts = check_enrolment(record, record.predicate.host, situation)
    require(verdicts)
    host = record.predicate
    if host.trust_class not in situation.trusted.policy.host.trust_classes:
        raise Refused(f"the policy takes no {host.trust_class} hosts", check="enrolment.class")
    vouched = Vouched(
        host=host.host, ek_spki=host.ek_spki, source="enrolment", digest=record.digest
    )
    return _issue_ak(
        authority,
        ak_public=host.ak_public,
        ek_certificate=host.ek_certificate,
        vouched=vouched,
        verdicts=verdicts,
        term=_term(authority, now=situation.now, life=life),
    )


def _issue_ak(
    authority: Authority,
    *,
    ak_public: bytes,
    ek_certificate: bytes,
    vouched: Vouched,
    verdicts: tuple[Verdict, ...],
    term: Term,
) -> Issued:
    _check_not_revoked(authority, spki(ak_public))
    _check_name(authority, vouched, now=term.not_before + BACKDATE)
    der = issue_ak_certificate(
        authority.key,
        authority.certificate,
        spki=spki(ak_public),
        ak_name=name(ak_public),
        vouched=vouched,
        ek_certificate=ek_certificate,
        term=term,
    )
    keep_issued(authority, der)
    return Issued(der=der, vouched=vouched, verdicts=verdicts)


# ── TLS keys ─────────────────────────────────────────────────────────────────────────────────────


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
    _check_not_revoked(authority, spki_of(ak_certificate))
    vouched = vouched_in(ak_certificate)
    ak_public = _ak_public(ak_certificate)
    verdicts = check_tls_request(request, ak_public=ak_public, host=vouched.host, now=now)
    require(verdicts)
    if unasked := sorted(set(dns) - set(request.dns)):
        raise Refused(f"the host has not asked for {', '.join(unasked)}", check="tls.names")
    if not dns:
        raise Refused("a certificate for TLS has at least one DNS name", check="tls.names")
    key = read_csr(request.csr).spki
    _check_not_revoked(authority, key)
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
            term=_ending_with(ak_certificate, _term(authority, now=now, life=life)),
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
    keys = {spki_of(der) for der in revoked if _vouched(der) is not None}
    issued = issued_here(home)
    vouched = [_vouched(der) for der in issued if spki_of(der) in keys]
    words = {one.urn for one in vouched if one is not None}
    listed = _revoked(home, besides=None)
    return tuple(
        der
        for der in issued
        if _vouched(der) is None
        and words & set(uris_of(der))
        and der not in revoked
        and read_certificate(der).serial_number not in listed
    )


def _vouched(der: bytes) -> Vouched | None:
    try:
        return vouched_in(der)
    except Malformed:
        return None


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
        term=_term(authority, now=now, life=SERVER_LIFE),
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
    if certificate.serial_number in _revoked(authority.home, besides=None):
        raise Refused("the AK's certificate is revoked", check="tls.ak")


def _check_not_revoked(authority: Authority, key: bytes) -> None:
    # A key that was taken out of use does not come back by asking again.
    revoked = _revoked(authority.home, besides="superseded")
    for der in issued_here(authority.home):
        if spki_of(der) == key and read_certificate(der).serial_number in revoked:
            raise Refused("a certificate of this key was revoked", check="certificate.revoked")


def _check_name(authority: Authority, vouched: Vouched, *, now: datetime) -> None:
    """Refuse the name of a host that is another TPM, as long as that one's certificate is good."""
    revoked = _revoked(authority.home, besides=None)
    for der in issued_here(authority.home):
        certificate, other = read_certificate(der), _vouched(der)
        if other is None:
            continue
        if (
            other.host == vouched.host
            and other.ek_spki != vouched.ek_spki
            and certificate.serial_number not in revoked
            and now <= certificate.not_valid_after_utc
        ):
            raise Refused(
                f"another TPM is certified as {vouched.host}",
                check="enrolment.name",
                hint="if it is that host no longer, revoke its certificate first",
            )


def _revoked(home: Home, *, besides: Reason | None) -> frozenset[int]:
    entries = revocations_of(read_crl(newest_crl(home)))
    return frozenset(entry.serial for entry in entries if entry.reason != besides)


def _term(authority: Authority, *, now: datetime, life: timedelta) -> Term:
    end = read_certificate(authority.certificate).not_valid_after_utc
    return Term(
        not_before=now - BACKDATE,
        not_after=min(now + life, end),
        crl_url=settings_of(authority.home).crl_url,
    )
