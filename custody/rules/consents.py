"""Who consented to a request, before anybody opens a share for it.  Protocol section 6.

A key in an HSM opens shares of every request.  So that an honest officer's share does not meet what
others gave to an older request, he opens it only when a quorum has first consented to this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from custody.encoding import format_time
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.keyrequest import Consent
from custody.formats.manifest import Manifest
from custody.rules.logged import JudgedLogged, place_of
from custody.rules.manifest import SKEW
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed


class JudgedConsent(msgspec.Struct, frozen=True, kw_only=True):
    """One consent, whose it is, and every check made on it."""

    statement: Statement[Consent]
    officer: str
    authentic: bool
    verdicts: tuple[Verdict, ...]

    @property
    def counts(self) -> bool:
        """Whether every check held."""
        return passed(self.verdicts)


def judge_consent(
    statement: Statement[Consent],
    request: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
    *,
    deniers: Sequence[str],
    logged: Sequence[JudgedLogged],
) -> JudgedConsent:
    """Judge one consent to ``request``.  ``deniers`` are the officers who denied it.

    Where there is a log's word on the request, only a consent that it names counts.
    """
    policy, said = situation.trusted.policy, statement.predicate
    keyid, officer, verdicts = check_author(
        statement, policy, role="officer", check="consent", subject="consent"
    )
    ledger = Ledger(subject=f"consent by {officer or 'nobody known'}")
    ledger.extend(verdicts)
    authentic = not ledger.failed
    person, key = policy.principal(officer), policy.signing_key(keyid)
    if person is not None and key is not None:
        ledger.extend(check_key(person, key, situation))
    # Of this very request: whoever carries files could otherwise show those of another one.
    ledger.add(
        "consent.request",
        (said.request, said.manifest, said.policy, said.terms)
        == (
            request.digest,
            manifest.digest,
            situation.trusted.digest,
            request.predicate.terms.digest().hex(),
        ),
        "is to this request, for this manifest, under the policy in force",
        otherwise="is to another request, manifest, policy or terms",
    )
    _check_time(ledger, said, request, situation)
    publisher = policy.holder(manifest.predicate.core.publisher)
    ledger.add(
        "consent.self",
        policy.self_approval or publisher is None or publisher.id != officer,
        "its author did not publish the manifest",
        otherwise=f"{officer} published this manifest and may not consent to it",
    )
    ledger.add(
        "consent.denied",
        not officer or officer not in deniers,
        "its author did not deny the same terms",
        otherwise=f"{officer} also denied the same terms",
    )
    if logged:
        _check_place(ledger, statement, logged)
    return JudgedConsent(
        statement=statement, officer=officer, authentic=authentic, verdicts=ledger.done()
    )


def consenting(consents: Sequence[JudgedConsent], at: datetime) -> set[str]:
    """Return the officers whose good consents held at a moment."""
    return {
        judged.officer
        for judged in consents
        if judged.counts
        and judged.statement.predicate.consented_at - SKEW <= at
        and at < judged.statement.predicate.expires_at
    }


def _check_time(
    ledger: Ledger, said: Consent, request: Statement[Asking], situation: Situation
) -> None:
    # Whether it had expired depends on when a share was opened by it, and is judged there.
    life = timedelta(seconds=situation.trusted.policy.limits.approval_seconds)
    asked = request.predicate.requested_at
    ledger.add(
        "consent.time",
        asked - SKEW <= said.consented_at <= situation.now + SKEW
        and said.consented_at < said.expires_at <= said.consented_at + life,
        f"given {format_time(said.consented_at)}, good until {format_time(said.expires_at)}",
        otherwise="given before the request or in the future, or longer than the policy allows: "
        f"{format_time(said.consented_at)} to {format_time(said.expires_at)}",
    )


def _check_place(
    ledger: Ledger, statement: Statement[Consent], logged: Sequence[JudgedLogged]
) -> None:
    place = place_of(statement.envelope, logged)
    if place is None:
        ledger.add("consent.logged", False, "is good, but not logged, which the policy demands")
        return
    ledger.add("consent.logged", True, f"entry {place.index} of {place.log}")
    if place.after is None or place.by is None:
        ledger.skip("consent.log-time", "no witness states a time: it is claimed")
        return
    span = f"between {format_time(place.after)} and {format_time(place.by)}"
    said_at = statement.predicate.consented_at
    ledger.add(
        "consent.log-time",
        place.after - SKEW <= said_at <= place.by + SKEW,
        f"made and logged {span}",
        otherwise=f"says it was made {format_time(said_at)}, but was made and logged {span}",
    )
