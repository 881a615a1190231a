"""The certificate authority of an environment: certificates, and lists of the revoked.

A certificate adds validity and revocation to a key the policy lists, never a key: an authority
that is stolen can stop releases, it cannot make one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.certificates import (
    Reason,
    Revocation,
    Use,
    certificate_signed_by,
    crl_number,
    crl_signed_by,
    issue_authority,
    issue_certificate,
    issue_crl,
    read_certificate,
    read_crl,
    revocations_of,
    spki_of,
)
from custody.crypto.der import MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES
from custody.crypto.keyslots import recipient_id
from custody.encoding import KeyId, format_time, key_id
from custody.errors import Incomplete, Refused
from custody.formats.policy import Principal, ShareKey, SigningKey
from custody.keys.api import KeyRole, Token
from custody.keys.wrapapi import make_recoverable
from custody.ops.admit import CheckedAdmission, admitted
from custody.ops.folders import read_file
from custody.ops.home import Home
from custody.ops.landing import replace_file, write_new_file

#: Ten years: longer than any policy, so that replacing it can be planned.
AUTHORITY_LIFE = timedelta(days=3653)
CERTIFICATE_LIFE = timedelta(days=397)
CRL_LIFE = timedelta(days=35)
#: A clock a little behind ours must not find our certificates not yet valid.
BACKDATE = timedelta(minutes=5)

_CERTIFICATE = "authority.cer"
_CRL = "authority.crl"
_ISSUED = "issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate and the file name it should have."""

    name: str
    der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority of a custodian's home, and its key."""

    home: Home
    certificate: bytes = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def found_authority(
    home: Home, token: Token, *, name: str, now: datetime, recoverable: bool = False
) -> bytes:
    """Make an authority's key in the token, its certificate and its first, empty revocation list.

    Returns the certificate; the list is `newest_crl`.  A home that has an authority of this name
    keeps it, so that a start that was interrupted can be made again.  A ``recoverable`` key can be
    backed up (ops/backup).
    """
    if (home.path / _CERTIFICATE).exists():
        known = open_authority(home, token).certificate
        if read_certificate(known).subject.rfc4514_string() != f"CN={name}":
            raise Refused(
                "this home keeps another authority",
                check="home.taken",
                where=str(home.path),
            )
        return known
    # Before there is a key that it would be about.
    home.begin()
    curve = ec.SECP384R1()
    if recoverable:
        key = make_recoverable(token, KeyRole.CA, name, curve)
    else:
        key = token.make(KeyRole.CA, name, curve)
    start = now - BACKDATE
    certificate = issue_authority(
        key, name=name, not_before=start, not_after=start + AUTHORITY_LIFE
    )
    crl = issue_crl(
        key,
        certificate,
        entries=(),
        number=1,
        this_update=now,
        next_update=now + CRL_LIFE,
    )
    # The certificate last: where it is, the rest is too.
    replace_file(home.path / _CRL, crl)
    write_new_file(home.path / _CERTIFICATE, certificate, mode=0o600)
    return certificate


def open_authority(home: Home, token: Token) -> Authority:
    """Find the authority's key in the token; a home without an authority: `Incomplete`."""
    certificate = authority_certificate(home)
    key = token.find(KeyRole.CA, key_id=key_id(spki_of(certificate)))
    return Authority(home=home, certificate=certificate, key=key)


def authority_certificate(home: Home) -> bytes:
    """Return the certificate of a home's authority; a home without one: `Incomplete`."""
    path = home.path / _CERTIFICATE
    if not path.exists():
        raise Incomplete(
            "this home has no certificate authority",
            missing=("the home of whoever keeps the authority",),
            where=str(home.path),
            hint="custody custodian init --authority, or custody enroller ca init, makes one",
        )
    return read_file(path, max_bytes=MAX_CERTIFICATE_BYTES)


def newest_crl(home: Home) -> bytes:
    """Return the newest revocation list this home has issued."""
    return read_file(home.path / _CRL, max_bytes=MAX_CRL_BYTES)


def issue(
    authority: Authority,
    admission: CheckedAdmission,
    *,
    now: datetime,
    life: timedelta = CERTIFICATE_LIFE,
) -> tuple[IssuedCertificate, ...]:
    """Issue a certificate for every key of an admission, and keep copies in the home."""
    person = admission.principal
    end = min(now + life, read_certificate(authority.certificate).not_valid_after_utc)
    issued = []
    for key in person.keys:
        use: Use = "sign" if isinstance(key, SigningKey) else "share"
        der = issue_certificate(
            authority.key,
            authority.certificate,
            spki=key.spki,
            principal=person.id,
            display=person.name,
            use=use,
            not_before=now - BACKDATE,
            not_after=end,
            code_signing=use == "sign" and "publisher" in person.roles,
        )
        issued.append(IssuedCertificate(name=_file_name(person, key), der=der))
    for certificate in issued:
        keep_issued(authority, certificate.der)
    return tuple(issued)


def keep_issued(authority: Authority, der: bytes) -> None:
    """Keep a copy of a certificate: what is not known to have been issued cannot be revoked."""
    serial = read_certificate(der).serial_number
    folder = authority.home.folder(_ISSUED)
    write_new_file(folder / f"{serial:040x}.cer", der, mode=0o600)


def issued_here(home: Home) -> tuple[bytes, ...]:
    """Return every certificate this home has issued."""
    paths = sorted(home.folder(_ISSUED).glob("*.cer"))
    return tuple(read_file(path, max_bytes=MAX_CERTIFICATE_BYTES) for path in paths)


def _file_name(person: Principal, key: SigningKey | ShareKey) -> str:
    use: Use = "sign" if isinstance(key, SigningKey) else "share"
    return f"{person.id}.{use}-{key.key_id[:8]}.cer"


def certificates_of(home: Home, key: KeyId) -> tuple[bytes, ...]:
    """Return every certificate this home has issued for a key, by the id that policies have."""
    names = _hybrids(home)
    return tuple(der for der in issued_here(home) if key in _ids(der, names))


def certified_until(home: Home, key: KeyId) -> datetime | None:
    """Return when the last certificate that this home has issued for a key ends, if any was."""
    ends = (read_certificate(der).not_valid_after_utc for der in certificates_of(home, key))
    return max(ends, default=None)


def whose(home: Home, certificate: bytes) -> str:
    """Say in words whose key a certificate is for, and which."""
    subject = read_certificate(certificate).subject.rfc4514_string()
    *_, key = _ids(certificate, _hybrids(home))
    return f"{subject}, key {key[:16]}…"


def _hybrids(home: Home) -> dict[bytes, KeyId]:
    """Return the ids of hybrid share keys that were admitted here, by what is in a certificate."""
    shares = (share for known in admitted(home) for share in known.predicate.shares)
    return {share.spki: recipient_id(share.spki, share.mlkem) for share in shares}


def _ids(certificate: bytes, hybrids: Mapping[bytes, KeyId]) -> tuple[KeyId, ...]:
    """Return by what a certificate's key is named: half a key, by that half and by the whole."""
    spki = spki_of(certificate)
    return (key_id(spki), *([hybrids[spki]] if spki in hybrids else ()))


def revoke(
    authority: Authority,
    certificates: Sequence[bytes],
    *,
    reason: Reason,
    since: datetime,
    now: datetime,
    current: bytes | None = None,
    life: timedelta = CRL_LIFE,
) -> bytes:
    """Issue the next revocation list, with ``certificates`` revoked since a moment.

    ``current`` is the list in use, if it may be newer than this home's (the token was used from
    another machine).  What was signed before ``since`` still counts; of several such moments the
    earliest does, whichever list it came by.  One to come is `Refused` (``revoke.since``).
    """
    if since > now:
        raise Refused(
            f"nobody is revoked since {format_time(since)}, which is to come",
            check="revoke.since",
            hint="revoke him then, or leave his key out of the next policy",
        )
    entries = []
    for der in certificates:
        certificate = read_certificate(der)
        # Its own list is the last place where anybody would look for it.
        if spki_of(der) == spki_of(authority.certificate):
            raise Refused(
                "is the authority itself, which no list of its own can revoke",
                check="revoke.authority",
                hint="make a new one, and list it alone in the next policy's authorities",
            )
        if not certificate_signed_by(certificate, authority.certificate):
            raise Refused("not issued by this authority", check="revoke.issuer")
        serial = certificate.serial_number
        entries.append(Revocation(serial=serial, revoked_at=since, reason=reason))
    return _next_crl(authority, entries, now=now, current=current, life=life)


def renew(
    authority: Authority,
    *,
    now: datetime,
    current: bytes | None = None,
    life: timedelta = CRL_LIFE,
) -> bytes:
    """Issue the next revocation list with the entries of this one."""
    return _next_crl(authority, (), now=now, current=current, life=life)


def _next_crl(
    authority: Authority,
    entries: Iterable[Revocation],
    *,
    now: datetime,
    current: bytes | None,
    life: timedelta,
) -> bytes:
    with authority.home.lock():
        base = _base(authority, current)
        crl = read_crl(base)
        # The newer of two lists may come from a machine that had not seen the other: whoever is on
        # either stays revoked.
        lists = [base, newest_crl(authority.home), *([current] if current else [])]
        listed = [entry for crl in lists for entry in revocations_of(read_crl(crl))]
        known: dict[int, Revocation] = {}
        for entry in (*listed, *entries):
            first = known.get(entry.serial, entry)
            known[entry.serial] = _joined(first, entry)
        new = issue_crl(
            authority.key,
            authority.certificate,
            entries=tuple(known.values()),
            number=crl_number(crl) + 1,
            this_update=now,
            next_update=now + life,
            previous=base,
        )
        replace_file(authority.home.path / _CRL, new)
    return new


def _joined(first: Revocation, second: Revocation) -> Revocation:
    """Make one entry of two: a theft may turn out to be older, and never becomes younger.

    Nor does it become a mere replacement, which tells nothing against a key.
    """
    return Revocation(
        serial=first.serial,
        revoked_at=min(first.revoked_at, second.revoked_at),
        reason=first.reason if second.reason == "superseded" else second.reason,
    )


def _base(authority: Authority, current: bytes | None) -> bytes:
    kept = newest_crl(authority.home)
    if current is None:
        return kept
    given = read_crl(current)
    if not crl_signed_by(given, authority.certificate):
        raise Refused("the list is not of this authority", check="revoke.issuer")
    return current if crl_number(given) > crl_number(read_crl(kept)) else kept


def write_certificates(folder: Path, certificates: Sequence[IssuedCertificate]) -> tuple[Path, ...]:
    """Write certificates into the environment's folder, beside earlier ones of the same keys."""
    paths = tuple(_free_name(folder, certificate.name) for certificate in certificates)
    for path, certificate in zip(paths, certificates, strict=True):
        write_new_file(path, certificate.der)
    return paths


def _free_name(folder: Path, name: str) -> Path:
    """Return ``alice.sign-1f0c77ab.cer``, or ``….2.cer`` where that is there, and so on."""
    path, stem = folder / name, name.removesuffix(".cer")
    for number in itertools.count(2):
        if not path.exists():
            break
        path = folder / f"{stem}.{number}.cer"
    return path
