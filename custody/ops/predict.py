"""Would this host still be let in after an update?  Asked before the update, of golden sets.

Nothing here is a verdict: officers judge the request the host makes then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from custody.encoding import Digest, Record, Text
from custody.errors import Refused
from custody.formats.envelope import Statement
from custody.formats.eventlog import parse_event_log
from custody.formats.goldenset import GoldenSet
from custody.ops.golden import Registers
from custody.rules.authorisation import authorised_by
from custody.rules.eventlog import Replay, differences, replay
from custody.rules.request import oldest_epoch
from custody.rules.situation import Situation
from custody.rules.trust import count_signers

#: ``passes``: as it runs now.  ``after-update``: once what the update changes has changed.
#: ``differs``: something is different that no approved set of this name explains.
Outcome = Literal["passes", "after-update", "differs"]


class Change(Record, frozen=True, kw_only=True):
    """What a golden set has otherwise.  ``update``: it is as another set of its name has it."""

    pcr: int
    expected: tuple[Text, ...]
    found: tuple[Text, ...]
    update: bool
    words: Text


class Prediction(Record, frozen=True, kw_only=True):
    """How a host stands to one golden set.

    ``signed``: by enough enrollers, for this environment and its registers.  ``replaced``: a newer
    set says that this epoch is good no longer.  ``authorised``: who lets kept keys open in it, of
    the ``needed`` that it takes; None where the policy keeps no keys over updates.
    """

    golden: Digest
    name: str
    epoch: int
    outcome: Outcome
    signed: bool
    replaced: bool
    changes: tuple[Change, ...]
    authorised: tuple[str, ...]
    needed: int | None

    @property
    def good(self) -> bool:
        """Whether the host will be let in by this set."""
        return self.outcome in ("passes", "after-update") and self.signed and not self.replaced


def predict(
    goldens: Sequence[Statement[GoldenSet]],
    *,
    tpm: Registers,
    event_log: bytes,
    situation: Situation,
) -> tuple[Prediction, ...]:
    """Compare the running boot with golden sets; the situation's say what an update changes.

    Raises `Refused` when the log is not of the boot that runs, `Malformed` when it is none.
    """
    replayed = replay(parse_event_log(event_log))
    pcrs = tuple(situation.trusted.policy.host.pcrs)
    live = tpm.pcr_values(pcrs)
    wrong = [pcr for pcr, value in zip(pcrs, live, strict=True) if replayed.values[pcr] != value]
    if wrong:
        raise Refused(
            f"the event log does not explain pcr {', '.join(map(str, wrong))} of this boot",
            check="predict.log",
        )
    known = [golden for golden in situation.documents.golden_sets if _counts(golden, situation)]
    return tuple(
        _predict(golden, replayed, [other.predicate for other in known], situation)
        for golden in goldens
    )


def _counts(golden: Statement[GoldenSet], situation: Situation) -> bool:
    """Whether a golden set is of this environment, over its registers, and signed by enough."""
    policy = situation.trusted.policy
    signed = count_signers(
        golden.envelope, policy, role="enroller", needed=policy.thresholds.golden
    )
    return (
        not signed.missing
        and golden.predicate.environment == situation.trusted.genesis
        and golden.predicate.selection() == tuple(policy.host.pcrs)
    )


def _predict(
    statement: Statement[GoldenSet],
    replayed: Replay,
    known: Sequence[GoldenSet],
    situation: Situation,
) -> Prediction:
    golden, policy = statement.predicate, situation.trusted.policy
    # A register that is as another approved set has it is one that the update changes; one that
    # is as no set has it is this host's own, and will still be so afterwards.
    explained = {
        register.pcr
        for other in known
        if other.name == golden.name
        for register in other.pcrs
        if replayed.values[register.pcr].hex() == register.value
    }
    changes = tuple(
        Change(
            pcr=difference.pcr,
            expected=difference.expected,
            found=difference.found,
            update=difference.pcr in explained,
            words=difference.words(),
        )
        for difference in differences(replayed, golden)
    )
    return Prediction(
        golden=statement.digest,
        name=golden.name,
        epoch=golden.epoch,
        outcome=_outcome(changes),
        signed=_counts(statement, situation),
        replaced=golden.epoch < oldest_epoch(golden.name, situation),
        changes=changes,
        authorised=tuple(sorted({each.enroller for each in authorised_by(statement, situation)})),
        needed=policy.thresholds.golden if "sealed-updatable" in policy.modes else None,
    )


def _outcome(changes: Sequence[Change]) -> Outcome:
    if not changes:
        return "passes"
    return "after-update" if all(change.update for change in changes) else "differs"
