"""H and time: what the owner of a TPM can do to its clock, and what TPM2_Clear does."""

from __future__ import annotations

import time

import pytest
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_CLOCK

from custody.errors import Refused
from custody.formats.evidence import parse_attest
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import ALL, Asked, ask

_SLOWER, _FASTER = TPM2_CLOCK.COARSE_SLOWER, TPM2_CLOCK.COARSE_FASTER
_STEPS = 40
_BOTH = ("0", "1")


def refusal(asked: Asked) -> str:
    """Return the check by which the TPM refuses a complete quorum."""
    with pytest.raises(Refused) as caught:
        asked.opens(asked.plan(_BOTH))
    return caught.value.check


def adjust(machine: Swtpm, rate: TPM2_CLOCK) -> None:
    """Run the clock as slow, or as fast, as its owner can."""
    with Tpm(machine.tcti).connect("change its clock's rate") as link:
        for _ in range(_STEPS):
            link.esys.clock_rate_adjust(rate)


@pytest.mark.parametrize("rate", [_SLOWER, _FASTER], ids=["slower", "faster"])
def test_another_rate_opens_no_dead_key(machine: Swtpm, host: HostTpm, rate: TPM2_CLOCK) -> None:
    """However the owner sets the rate, H opens before its deadline and not after it."""
    asked = ask(host, ALL, milliseconds=1500)
    adjust(machine, rate)
    assert asked.opens(asked.plan(_BOTH))
    deadline = asked.empty.conditions.deadline_ms
    end = time.monotonic() + 30
    while host.clock().clock_ms < deadline and time.monotonic() < end:
        time.sleep(0.05)
    assert "tpm.deadline" == refusal(asked)


def test_the_slowest_clock_still_runs(machine: Swtpm, host: HostTpm) -> None:
    """The owner can stretch a deadline, by less than half, but not stop the clock."""
    adjust(machine, _SLOWER)
    before, begun = host.clock().clock_ms, time.monotonic()
    time.sleep(1)
    passed_ms = host.clock().clock_ms - before
    waited_ms = (time.monotonic() - begun) * 1000
    assert passed_ms > waited_ms / 2


def test_a_clock_is_not_set_back(machine: Swtpm, host: HostTpm) -> None:
    """The owner can move the clock on, which only kills H sooner, and never back."""
    asked = ask(host, ALL, milliseconds=60_000)
    now = host.clock().clock_ms
    with Tpm(machine.tcti).connect("set its clock") as link:
        link.esys.clock_set(now + 120_000)
        with pytest.raises(TSS2_Exception):
            link.esys.clock_set(now)
    assert "tpm.deadline" == refusal(asked)


def test_a_suspended_machine_does_not_wait_for_its_deadline(machine: Swtpm, host: HostTpm) -> None:
    """The clock stands while a machine sleeps; H does not outlive the sleep."""
    asked = ask(host, ALL)
    assert asked.opens(asked.plan(_BOTH))
    machine.suspend_resume()
    assert host.clock().clock_ms < asked.empty.conditions.deadline_ms
    assert "tpm.rebooted" == refusal(asked)


def clear(machine: Swtpm) -> None:
    """Clear the TPM, as its lockout authorisation or its firmware can."""
    with Tpm(machine.tcti).connect("clear it") as link:
        link.esys.clear(ESYS_TR.LOCKOUT)


def test_a_cleared_tpm_opens_nothing_of_before(machine: Swtpm, host: HostTpm) -> None:
    """TPM2_Clear sets the clock back below every deadline, and H stays shut."""
    asked = ask(host, ALL, milliseconds=1000)
    while host.clock().clock_ms < asked.empty.conditions.deadline_ms:
        time.sleep(0.05)
    assert "tpm.deadline" == refusal(asked)
    clear(machine)
    assert host.clock().clock_ms < asked.empty.conditions.deadline_ms
    assert "tpm.rebooted" == refusal(asked)
    # The counter is made again, by the next request: above what it was, and H is burnt as well.
    assert host.allocate_counter(()).value > asked.counter.value
    assert "tpm.rebooted" == refusal(asked)


def test_a_cleared_tpm_is_the_same_host(machine: Swtpm, host: HostTpm) -> None:
    """The AK comes back with its Name, boot counts begin at 0, and a reboot makes it usable."""
    ak, certificate = host.ak_public(), host.ek_certificate()
    clear(machine)
    again = TpmHost(machine.tcti)
    assert (ak, certificate) == (again.ak_public(), again.ek_certificate())
    quoted = parse_attest(again.quote(bytes(32), (0,)).attest)
    assert 0 == quoted.clock.reset_count
    machine.reboot()
    asked = ask(again, ALL)
    assert 1 == asked.empty.conditions.reset_count
    assert asked.opens(asked.plan(_BOTH))
