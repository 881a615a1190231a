"""What an enroller is told before he vouches for a host, by files or at his desk."""

from __future__ import annotations

from custody.cli._ui import Screen
from custody.encoding import format_time
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.policy import TrustClass
from custody.ops.enroll import differences, ek_digest, namesakes, replaced
from custody.rules.situation import Situation


def say_whom(
    screen: Screen, asked: EnrolmentRequest, trust_class: TrustClass, situation: Situation
) -> None:
    """Say which host it is, which other TPM is too, and which record ends, changed in what."""
    screen.say(f"host {asked.host}, {trust_class}, EK {ek_digest(asked)}")
    for other in namesakes(asked, situation):
        said = other.predicate
        when = format_time(said.enrolled_at)
        screen.say(f"another TPM is {said.host} since {when}: EK {said.ek_spki}")
    old = replaced(asked, situation)
    if old is None:
        return
    said = old.predicate
    screen.say(f"ends its record {said.epoch} of {format_time(said.enrolled_at)}, {said.host}")
    changed = differences(said, asked)
    screen.say(f"changed since: {', '.join(changed) if changed else 'nothing'}")
