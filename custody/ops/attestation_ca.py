"""An attestation authority, and its certificates for AKs.  Format: hostcertificate.md.

It convinces whoever trusts this one authority, as other programs do; nothing in a release rests on
it.  Its vendor roots and its inventory are given with each command, so it needs no policy; where
there is one, the enrolment record takes the place of its own challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from custody.crypto.certificates import (
    Reason,
    read_certificate,
    read_crl,
    revocations_of,
    spki_of,
)
from custody.crypto.host_certificates import (
    KeyClass,
    Term,
    Vouched,
    issue_ak_certificate,
    vouched_in,
)
from custody.encoding import Record, Text, encode, key_id
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement
from custody.formats.evidence import name, spki
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
from custody.ops.files import read_record
from custody.ops.home import Home
from custody.ops.inventory import Inventory
from custody.ops.keys import TokenRandom
from custody.ops.landing import write_new_file
from custody.rules.endorsement import (
    NO_LISTS,
    check_attestation_key,
    check_endorsement,
    check_listed_name,
)
from custody.rules.request import check_enrolment
from custody.rules.situation import Situation
from custody.rules.verdicts import Verdict, require

#: A month: what is replaced as often is known to work when it must be replaced.
AK_LIFE = timedelta(days=30)
MAX_LIFE = timedelta(days=397)

_SETTINGS = "attestation-ca.json"


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
    return read_record(CaSettings, path)


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
        term=term_of(authority, now=now, life=life),
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
        term=term_of(authority, now=situation.now, life=life),
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
    check_not_revoked(authority, spki(ak_public))
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


def vouched_by(der: bytes) -> Vouched | None:
    """Return what an AK's certificate says of its host; None for a certificate of another kind."""
    try:
        return vouched_in(der)
    except Malformed:
        return None


def check_not_revoked(authority: Authority, key: bytes) -> None:
    """Refuse a key (SPKI) of which a certificate was revoked (``certificate.revoked``)."""
    # A key that was taken out of use does not come back by asking again.
    revoked = revoked_serials(authority.home, besides="superseded")
    for der in issued_here(authority.home):
        if spki_of(der) == key and read_certificate(der).serial_number in revoked:
            raise Refused("a certificate of this key was revoked", check="certificate.revoked")


def _check_name(authority: Authority, vouched: Vouched, *, now: datetime) -> None:
    """Refuse the name of a host that is another TPM, as long as that one's certificate is good."""
    revoked = revoked_serials(authority.home, besides=None)
    for der in issued_here(authority.home):
        certificate, other = read_certificate(der), vouched_by(der)
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


def revoked_serials(home: Home, *, besides: Reason | None) -> frozenset[int]:
    """Return what the authority's newest list revokes, but for one reason."""
    entries = revocations_of(read_crl(newest_crl(home)))
    return frozenset(entry.serial for entry in entries if entry.reason != besides)


def term_of(authority: Authority, *, now: datetime, life: timedelta) -> Term:
    """Return how long a certificate is good: no longer than its authority's."""
    end = read_certificate(authority.certificate).not_valid_after_utc
    return Term(
        not_before=now - BACKDATE,
        not_after=min(now + life, end),
        crl_url=settings_of(authority.home).crl_url,
    )
