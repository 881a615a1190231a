"""Consent to requests of hosts without a TPM, before anybody opens a share.  Protocol section 6."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from custody.errors import Refused
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.keyrequest import Consent
from custody.formats.manifest import Manifest
from custody.ops.answers import Answered, keep_answers
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.ops.officers import answer_lifetime, check_may_answer, officer_of
from custody.rules.asking import check_asked
from custody.rules.manifest import check_manifest
from custody.rules.situation import Situation
from custody.rules.verdicts import require


def consent_to(
    manifest: Statement[Manifest],
    requests: Sequence[Statement[Asking]],
    *,
    situation: Situation,
    home: Home,
    signer: Signer,
    lifetime: timedelta | None = None,
) -> tuple[Answered, ...]:
    """Consent to every request, all or none; no share is opened.

    ``lifetime`` (whole seconds) is at most that of an approval, which it is without one.  Raises
    `Refused` with the first check that fails, ``consent.kind`` for a TPM's request, which takes
    approvals alone.
    """
    lifetime = answer_lifetime(lifetime, situation)
    require(check_manifest(manifest, situation))
    check_may_consent(manifest, requests, situation, home, signer)
    for request in requests:
        require(check_asked(request, manifest, situation))
    consents = [
        signer.statement(
            Consent(
                author=signer.key_id,
                request=request.digest,
                manifest=manifest.digest,
                policy=situation.trusted.digest,
                terms=request.predicate.terms.digest().hex(),
                consented_at=situation.now,
                expires_at=situation.now + lifetime,
            )
        )
        for request in requests
    ]
    return keep_answers(home, Consent, requests, consents)


def check_may_consent(
    manifest: Statement[Manifest],
    requests: Sequence[Statement[Asking]],
    situation: Situation,
    home: Home,
    signer: Signer,
) -> str:
    """Return whose key ``signer`` is, if he may consent to these requests now.

    Whether they are sound is not asked.  Raises as `officer_of` and `check_may_answer`,
    and ``consent.kind`` for a TPM's request.
    """
    officer = officer_of(signer, situation)
    for request in requests:
        if not request.predicate.CONSENT_FIRST:
            raise Refused(
                "its TPM keeps shares of several requests apart: no consent is taken first",
                check="consent.kind",
                where=f"request of {request.predicate.host}",
                hint="custody officer approve",
            )
        check_may_answer(officer, request, manifest, situation, home)
    return officer
