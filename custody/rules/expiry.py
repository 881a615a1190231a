"""What of an environment ends, and when: the policy, authorities, certificates, lists, bundles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from custody.crypto.certificates import certificate_signed_by, read_certificate, spki_of
from custody.encoding import key_id
from custody.errors import Malformed
from custody.formats.case import Documents
from custody.formats.policy import Policy, Principal, ShareKey, SigningKey
from custody.rules.certificates import RevocationList, read_revocation_lists
from custody.rules.holdings import Sealing
from custody.rules.living import Papers, key_faults

Kind = Literal["policy", "authority", "revocation list", "certificate", "bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One thing that ends.  ``at`` None: it is bad already, or not there, as ``reason`` says."""

    kind: Kind
    subject: str
    at: datetime | None
    reason: str
    remedy: str

    def due(self, now: datetime, within: timedelta) -> bool:
        """Tell whether it has ended, or ends within that time."""
        return self.at is None or self.at <= now + within


def endings(
    policy: Policy, documents: Documents, sealings: Sequence[Sealing], *, now: datetime
) -> tuple[Ending, ...]:
    """List everything of an environment that ends, what is bad already first, then by time."""
    found = [
        Ending(
            kind="policy",
            subject=f"{policy.environment}, version {policy.version}",
            at=policy.expires_at,
            reason="",
            remedy="custody custodian policy propose",
        ),
        *_authorities(policy, documents),
        *_certificates(policy, documents, now),
        *_bundles(policy, sealings, now),
    ]
    return tuple(sorted(found, key=lambda one: (one.at is not None, one.at or now, one.subject)))


def _authorities(policy: Policy, documents: Documents) -> Iterator[Ending]:
    lists = read_revocation_lists(documents.crls, authorities=policy.authorities)
    for der in policy.authorities:
        certificate = read_certificate(der)
        name = certificate.subject.rfc4514_string()
        yield Ending(
            kind="authority",
            subject=name,
            at=certificate.not_valid_after_utc,
            reason="",
            remedy="a new authority, listed beside this one in the next policy",
        )
        newest = _newest(lists, key_id(spki_of(der)))
        oldest_age = timedelta(seconds=policy.limits.crl_max_age_seconds)
        yield Ending(
            kind="revocation list",
            subject=f"{name}, list {newest.number}" if newest else name,
            at=min(newest.next_update, newest.this_update + oldest_age) if newest else None,
            reason="" if newest else "no list of it is here",
            remedy="custody custodian renew-crl",
        )


def _newest(lists: Sequence[RevocationList], issuer: str) -> RevocationList | None:
    # They come in order of their numbers.
    mine = [crl for crl in lists if crl.issuer == issuer]
    return mine[-1] if mine else None


def _certificates(policy: Policy, documents: Documents, now: datetime) -> Iterator[Ending]:
    papers = Papers(certificates=documents.certificates, crls=documents.crls, now=now)
    ends = _ends(policy, documents.certificates)
    for person in policy.principals:
        for key in person.keys:
            yield _certificate(policy, person, key, papers, ends)


def _certificate(
    policy: Policy,
    person: Principal,
    key: SigningKey | ShareKey,
    papers: Papers,
    ends: dict[bytes, datetime],
) -> Ending:
    use = "signing" if isinstance(key, SigningKey) else "share"
    # A list that is stale has a row of its own; here it would hide what is wrong with each key.
    faults = [
        fault
        for fault in key_faults(policy, person, key, papers)
        if not fault.check.startswith("crl.")
    ]
    revoked = any(fault.check == "certificate.revoked" for fault in faults)
    known = ends.get(key.spki)
    lapsed = known is not None and known <= papers.now
    return Ending(
        kind="certificate",
        subject=f"{person.id}'s {use} key {key.key_id[:16]}…",
        at=None if faults and not lapsed else known,
        reason=faults[0].reason if faults else "",
        remedy="the next policy without this key"
        if revoked
        else f"custody custodian admit {person.id}.admission.dsse",
    )


def _ends(policy: Policy, ders: Sequence[bytes]) -> dict[bytes, datetime]:
    """Tell until when each key of the policy has a certificate of an authority of the policy.

    A stranger's of a later date, laid beside it, must not hide that the good one ends.
    """
    listed = {key.spki for person in policy.principals for key in person.keys}
    found: dict[bytes, datetime] = {}
    for der in ders:
        try:
            spki, certificate = spki_of(der), read_certificate(der)
        except Malformed:
            continue
        if spki not in listed or not any(
            certificate_signed_by(certificate, authority) for authority in policy.authorities
        ):
            continue
        end = certificate.not_valid_after_utc
        found[spki] = max(end, found.get(spki, end))
    return found


def _bundles(policy: Policy, sealings: Sequence[Sealing], now: datetime) -> Iterator[Ending]:
    replaced = {sealing.manifest.predicate.core.replaces for sealing in sealings}
    for sealing in sealings:
        core, digest = sealing.manifest.predicate.core, sealing.manifest.digest
        # What is over, withdrawn or replaced needs nobody's care.
        if digest in policy.withdrawn or digest in replaced or core.not_after <= now:
            continue
        yield Ending(
            kind="bundle",
            subject=f"manifest {digest[:16]}… of {sealing.publisher}",
            at=core.not_after,
            reason="",
            remedy=f"custody publisher seal --replaces {digest}",
        )
