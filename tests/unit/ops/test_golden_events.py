"""Golden sets made of event logs, and what a host is told of them before an update."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.errors import Malformed, Refused
from custody.formats.case import Documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.eventlog import EventType, parse_event_log
from custody.formats.goldenset import GoldenSet, PcrEvents, PcrValue
from custody.formats.state import Memory
from custody.ops.golden import approve_state, measure
from custody.ops.predict import Prediction, predict
from custody.rules.eventlog import replay
from custody.rules.request import oldest_epoch
from custody.rules.situation import Situation
from custody.rules.trust import trust_chain
from tests.unit.eventlogs import boot, event, genuine, log, separators
from tests.unit.people import NOW, policy, signed_policy, signer

PCRS = (0, 4, 7, 9)
POLICY = signed_policy(policy(host=replace(policy().host, pcrs=PCRS)))


@dataclass(frozen=True)
class Booted:
    """A TPM whose registers are what a log makes them."""

    event_log: bytes

    def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        values = replay(parse_event_log(self.event_log)).values
        return tuple(values[pcr] for pcr in pcrs)


PLAIN, UPDATED, OTHER = (Booted(genuine(name)) for name in ("plain", "kernel", "cmdline"))


def standing(*goldens: Statement[GoldenSet]) -> Situation:
    """Judge with those golden sets at hand."""
    memory = Memory(
        kind="custody/memory/v1",
        pin=POLICY.digest,
        environment=POLICY.digest,
        policy=POLICY.digest,
        policy_version=1,
        crls=(),
        golden_sets=(),
        hosts=(),
        enrolments=(),
    )
    trusted = trust_chain([POLICY], pin=POLICY.digest, floor=1, now=NOW)
    documents = Documents(policies=(POLICY,), golden_sets=goldens)
    return Situation(trusted=trusted, documents=documents, memory=memory, now=NOW)


def approve(
    tpm: Booted,
    *,
    epoch: int = 1,
    oldest: int | None = None,
    shown: bytes | None = None,
    signers: tuple[str, ...] = ("erik", "esme"),
) -> Statement[GoldenSet]:
    """Measure a machine, each enroller for himself, and vouch for it."""
    signed: Statement[GoldenSet] | None = None
    log_shown = tpm.event_log if shown is None else shown
    for name in signers:
        data = approve_state(
            measure(tpm, pcrs=PCRS, now=NOW, event_log=log_shown),
            signer=signer(name),
            situation=standing(),
            name="gpu",
            notes="",
            epoch=epoch,
            oldest=oldest,
            onto=signed,
        )
        signed = decode_statement(GoldenSet, data)
    assert signed is not None
    return signed


def test_a_log_gives_components() -> None:
    """A golden set from a measurement with its log has the registers' values, and names."""
    made = approve(PLAIN).predicate
    assert PCRS == made.selection()
    assert [value.hex() for value in PLAIN.pcr_values(PCRS)] == [r.value for r in made.pcrs]
    kernel = made.pcrs[1]
    assert isinstance(kernel, PcrEvents)
    assert ["boot application kernel", "Calling EFI Application from Boot Option", "separator"] == [
        component.label for component in kernel.components
    ]


def test_no_log_gives_values() -> None:
    """Without a log the set has the registers' values, and is the same state."""
    made = approve(PLAIN, shown=b"").predicate
    assert all(isinstance(register, PcrValue) for register in made.pcrs)
    assert approve(PLAIN).predicate.pcr_digest() == made.pcr_digest()


def test_a_log_of_another_boot_is_not_vouched_for() -> None:
    """The measurement's log must explain the registers measured beside it."""
    with pytest.raises(Refused, match="pcr 4") as refused:
        approve(PLAIN, shown=UPDATED.event_log)
    assert "attestation.V53" == refused.value.check


def test_a_log_that_breaks_its_rules_is_not_vouched_for() -> None:
    """Nor is one that replays but is not as logs must be (synthetic)."""
    with pytest.raises(Refused) as refused:
        approve(Booted(log(*boot(), event(1, 0x1234, b"")).pack()))
    assert "attestation.V54" == refused.value.check


def test_the_locality_is_kept() -> None:
    """A set made of a TPM started at locality 3 derives its register 0 (synthetic)."""
    start = event(0, EventType.NO_ACTION, b"StartupLocality\0\3", bytes(32))
    tpm = Booted(log(start, *boot()).pack())
    register = approve(tpm).predicate.pcrs[0]
    assert isinstance(register, PcrEvents)
    assert (3, tpm.pcr_values((0,))[0].hex()) == (register.locality, register.value)


def test_only_register_0_has_a_locality() -> None:
    """No other register begins with one."""
    with pytest.raises(ValueError, match="PCR 0"):
        PcrEvents(pcr=4, locality=3, components=())


def test_machines_of_one_build_sign_one_set() -> None:
    """The second enroller's machine may have other addresses in its log, not other components."""
    both = approve(PLAIN)
    assert 2 == len(both.envelope.signatures)
    with pytest.raises(Refused, match="differs from what you measured: pcrs"):
        approve_state(
            measure(UPDATED, pcrs=PCRS, now=NOW, event_log=UPDATED.event_log),
            signer=signer("esme"),
            situation=standing(),
            name="gpu",
            notes="",
            epoch=1,
            onto=approve(PLAIN, signers=("erik",)),
        )


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────


def test_a_new_epoch_ends_the_old() -> None:
    """Unless it says otherwise, a set leaves nothing before it good."""
    assert 1 == oldest_epoch("gpu", standing(approve(PLAIN)))
    assert 2 == oldest_epoch("gpu", standing(approve(PLAIN), approve(UPDATED, epoch=2)))
    both = standing(approve(PLAIN), approve(UPDATED, epoch=2, oldest=1))
    assert 1 == oldest_epoch("gpu", both)


def test_only_the_threshold_ends_an_epoch() -> None:
    """One enroller, a set of another name, or one from the future retires nothing."""
    half = approve(UPDATED, epoch=9, signers=("erik",))
    assert 1 == oldest_epoch("gpu", standing(approve(PLAIN), half))
    whole = approve(UPDATED, epoch=9)
    assert 1 == oldest_epoch("cpu", standing(whole))
    now = standing(whole)
    before = NOW.replace(year=NOW.year - 1)
    earlier = Situation(trusted=now.trusted, documents=now.documents, memory=now.memory, now=before)
    assert 1 == oldest_epoch("gpu", earlier)


def test_an_epoch_keeps_itself() -> None:
    """A set that would end itself is malformed."""
    with pytest.raises((Malformed, ValueError), match="oldest"):
        approve(PLAIN, epoch=2, oldest=3)


# ── predicting ───────────────────────────────────────────────────────────────────────────────────


def ask(tpm: Booted, golden: Statement[GoldenSet], *known: Statement[GoldenSet]) -> Prediction:
    """Ask what becomes of a machine."""
    (found,) = predict([golden], tpm=tpm, event_log=tpm.event_log, situation=standing(*known))
    return found


def test_a_host_that_passes_is_told_so() -> None:
    """As it runs now."""
    found = ask(PLAIN, approve(PLAIN))
    assert ("passes", (), True) == (found.outcome, found.changes, found.good)


def test_a_kernel_update_is_foreseen() -> None:
    """A host in the old state passes once updated; the component is named."""
    old, new = approve(PLAIN), approve(UPDATED, epoch=2, oldest=1)
    found = ask(PLAIN, new, old)
    assert ("after-update", True) == (found.outcome, found.good)
    assert ["pcr 4: 'boot application kernel' changed"] == [c.words for c in found.changes]
    assert [True] == [change.update for change in found.changes]


def test_what_is_the_hosts_own_stays() -> None:
    """A host whose command line nobody approved does not pass after a kernel update either."""
    old, new = approve(PLAIN), approve(UPDATED, epoch=2, oldest=1)
    found = ask(OTHER, new, old)
    assert ("differs", False) == (found.outcome, found.good)
    assert [(4, True), (9, False)] == [(change.pcr, change.update) for change in found.changes]


def test_with_nothing_to_compare_a_difference_is_the_hosts() -> None:
    """Where no approved set is at hand, or too few signed it, nothing is an update's doing."""
    new = approve(UPDATED, epoch=2)
    assert "differs" == ask(PLAIN, new).outcome
    assert "differs" == ask(PLAIN, new, approve(PLAIN, signers=("erik",))).outcome


def test_a_set_that_does_not_count_lets_nobody_in() -> None:
    """One signature too few, or a newer epoch, is told apart from the boot state."""
    half = ask(PLAIN, approve(PLAIN, signers=("erik",)))
    assert ("passes", False, False) == (half.outcome, half.signed, half.good)
    replaced = ask(PLAIN, approve(PLAIN), approve(UPDATED, epoch=2))
    assert ("passes", True, False) == (replaced.outcome, replaced.replaced, replaced.good)


def test_a_log_of_another_boot_predicts_nothing() -> None:
    """The log must explain the registers of the boot that runs."""
    with pytest.raises(Refused, match="does not explain pcr 4") as refused:
        predict(
            [approve(PLAIN)],
            tpm=PLAIN,
            event_log=UPDATED.event_log,
            situation=standing(),
        )
    assert "predict.log" == refused.value.check


def test_a_set_by_values_is_compared_by_values() -> None:
    """Where a vendor gives only values, the register is named and no component."""
    found = ask(UPDATED, approve(PLAIN, shown=b""))
    assert ["pcr 4: another value"] == [change.words for change in found.changes]


def test_the_separators_alone_make_a_register() -> None:
    """Registers with nothing but a separator compare like any other (synthetic)."""
    tpm = Booted(log(*separators()).pack())
    assert "passes" == ask(tpm, approve(tpm)).outcome


def test_a_golden_file_is_small(tmp_path: Path) -> None:
    """A set by components of a whole boot stays far from the limit of a statement."""
    size = len(approve(PLAIN).envelope.payload)
    assert 1000 < size < 16_000
