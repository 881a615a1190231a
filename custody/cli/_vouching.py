"""What an enroller is told before he vouches for a host, by files or at his desk."""

from __future__ import annotations

from custody.cli._ui import Screen
from custody.encoding import format_time
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.policy import TrustClass
from custody.ops.enroll import differences, ek_digest, replaced
from custody.rules.situation import Situation


def say_whom(
    screen: Screen, asked: EnrolmentRequest, trust_class: TrustClass, situation: Situation
) -> None:
    """Say which host it is, which record of its TPM the new one ends, and what has changed."""
    screen.say(f"host {asked.host}, {trust_class}, EK {ek_digest(asked)}")
    old = replaced(asked, situation)
    if old is None:
        return
    said = old.predicate
    screen.say(f"ends its record {said.epoch} of {format_time(said.enrolled_at)}, {said.host}")
    changed = differences(said, asked)
    screen.say(f"changed since: {', '.join(changed) if changed else 'nothing'}")
