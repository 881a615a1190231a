"""What a host could try with a counter and with H that evidence cannot show: the TPM refuses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from custody.crypto.tpmpolicy import host_policy
from custody.errors import Refused
from custody.keys.hostapi import HostTpm
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import ALL, PCRS, Asked, ask
from tests.unit.rules.attestation_vectors import KEPT, Folder


def ahead(host: HostTpm, by: int) -> Asked:
    """Ask with terms whose counter is ahead of the TPM's, as a host can that fills them in."""
    asked = ask(host, ALL)
    conditions = replace(asked.empty.conditions, counter=asked.counter.value + by)
    plan = replace(asked.empty, conditions=conditions)
    policy = host_policy(ALL, plan.officers, terms=plan.terms, conditions=conditions)
    return replace(asked, empty=plan, key=host.create_host_key(policy, PCRS))


def refusal(asked: Asked) -> str:
    """Return the check by which the TPM refuses a complete quorum."""
    with pytest.raises(Refused) as caught:
        asked.opens(asked.plan(["0", "1"]))
    return caught.value.check


def test_a_counter_preset_ahead_is_a_counter_all_the_same(host: HostTpm) -> None:
    """H opens at the one value of its policy, before it not yet and after it never again.

    Whoever sets the counter ahead in the terms gains nothing: one increment burns H, and the burn
    receipt shows a value above the terms'.
    """
    asked = ahead(host, by=2)
    index = asked.counter.index
    assert "tpm.counter" == refusal(asked)
    host.increment(index)
    assert "tpm.counter" == refusal(asked)
    host.increment(index)
    assert asked.empty.conditions.counter == host.read_counter(index)
    assert asked.opens(asked.plan(["0", "1"]))
    host.increment(index)
    assert asked.empty.conditions.counter < host.read_counter(index)
    assert "tpm.counter" == refusal(asked)


def test_a_blob_kept_over_a_reset_is_dead(machine: Swtpm, host: HostTpm) -> None:
    """H's blob, saved and shown again in the next boot of the same state, does not load."""
    asked = ask(host, ALL)
    assert asked.opens(asked.plan(["0", "1"]))
    machine.reboot()
    bootlog.extend(machine, bootlog.record(bootlog.BootState()))
    assert "tpm.rebooted" == refusal(asked)
    with pytest.raises(Refused) as certifying:
        host.certify_creation(asked.key, bytes(32))
    assert "tpm.rebooted" == certifying.value.check


def test_a_blob_reloaded_in_its_boot_is_the_same_key(host: HostTpm) -> None:
    """Within a boot the blob loads as often as one likes: it is the burn that ends it, not a flush.

    The NULL hierarchy makes the same parent again until the next reset.
    """
    asked = ask(host, ALL)
    for _ in range(2):
        assert asked.opens(asked.plan(["0", "1"]))
    host.increment(asked.counter.index)
    assert "tpm.counter" == refusal(asked)


def test_the_attacks_are_made_again_and_refused(manufactured: Swtpm, tmp_path: Path) -> None:
    """The script makes every kept vector anew on this machine's swtpm; each fails as it says."""
    from tests.vectors.attestation.make import write

    write(tmp_path)
    made = Folder(tmp_path)
    assert KEPT.names == made.names
    for name in made.names:
        fails = {v.check for v in made.judged(name) if v.outcome == "fail"}
        assert KEPT.expected(name) == made.expected(name) == fails, name
