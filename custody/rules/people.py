"""Is this key, today, the key of a person in that role?"""

from __future__ import annotations

from custody.errors import Malformed
from custody.formats.policy import Principal, ShareKey, SigningKey
from custody.rules.certificates import check_certificate
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict


def check_key(
    principal: Principal, key: SigningKey | ShareKey, situation: Situation
) -> tuple[Verdict, ...]:
    """Judge the certificate of a listed key: validity and revocation at the moment.

    The policy lists the key; a certificate only ever takes away.
    """
    policy = situation.trusted.policy
    ledger = Ledger(subject=f"certificate of {principal.id}")
    with ledger.failing("certificate.found"):
        if policy.principal(principal.id) is None:
            raise Malformed(f"{principal.id} is not in the policy in force")
        ledger.extend(
            check_certificate(
                key.spki,
                use="sign" if isinstance(key, SigningKey) else "share",
                principal=principal.id,
                certificates=situation.documents.certificates,
                authorities=policy.authorities,
                crls=situation.documents.crls,
                crl_floor=situation.crl_floor,
                crl_max_age_seconds=policy.limits.crl_max_age_seconds,
                moment=situation.now,
            )
        )
    return ledger.done()
