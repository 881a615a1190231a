"""Which ceremonies are told as believed beside what follows from a pin."""

from __future__ import annotations

import pytest

from custody.encoding import Digest
from custody.formats.case import Documents
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.chronicle import chronicle_of
from custody.ops.transcript import read_script
from custody.rules.ceremony import progress_of
from custody.rules.verdicts import Verdict
from tests.unit.people import policy, signed_policy
from tests.unit.rules import ceremony_whole as table

PINNED = signed_policy(policy(), "cas", "ida")
EVERYBODY = ("cas", "cyd", "ida", "leo", "pub", "sec1", "sec2")
HOLDS = Verdict(check="ceremony.chain", outcome="pass", reason="its records follow each other")


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (PINNED.digest, ""),
        (None, "not tied: no policy of the chain from the pin came of it"),
        ("ab" * 32, "the policy that came of it is none of those that follow from the pin"),
    ],
    ids=["its policy is pinned", "no policy came of it", "another policy came of it"],
)
def test_a_ceremony_that_nothing_ties_to_the_pin_is_not_believed(
    made: Digest | None, fault: str
) -> None:
    """Anybody can hold one with his own tokens, and all of it holds; nobody is said to sign it."""
    lines = table.whole().lines
    progress = progress_of(lines)
    progress.policy = made
    judged = JudgedCeremony(
        held=read_script(table.SCRIPT), lines=lines, progress=progress, verdicts=(HOLDS,)
    )
    told = chronicle_of(
        Documents(policies=(PINNED,)), pin=PINNED.digest, now=None, ceremonies=[judged]
    )
    (held,) = (deed for deed in told.deeds if deed.done == "ceremony.held")
    assert (fault, () if fault else EVERYBODY) == (held.fault, held.who)
