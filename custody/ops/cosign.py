"""Before somebody adds his signature to what others have signed.

The first signer's time stands, so whoever carries the file, or a single enroller, could have a
threshold date something back, and an auditor find that what was good had ended by then.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from custody.encoding import KeyId, format_time
from custody.errors import Refused
from custody.formats.envelope import Envelope
from custody.rules.situation import Situation
from custody.rules.trust import count_signers

#: By files signatures take days; a statement that is still short of one after this begins anew.
SIGNING_LIFE = timedelta(days=30)


def check_begun(
    envelope: Envelope,
    *,
    dated: datetime,
    key: KeyId,
    threshold: int,
    situation: Situation,
    check: str,
) -> None:
    """Refuse to add a signature by ``key`` to what no other enroller has signed, in these days.

    What ``threshold`` of them have signed counts as it is, however old.
    """
    if any(signature.keyid == key for signature in envelope.signatures):
        raise Refused("you have signed it already", check=check)
    policy = situation.trusted.policy
    signed = count_signers(envelope, policy, role="enroller", needed=threshold)
    if not signed.signers:
        raise Refused("no enroller of this policy has signed it", check=check)
    if dated > situation.now:
        raise Refused("it is from the future", check=check)
    if signed.missing and dated < situation.now - SIGNING_LIFE:
        raise Refused(
            f"it was begun on {format_time(dated)}, too long ago to sign on",
            check=check,
            hint="begin it anew",
        )
