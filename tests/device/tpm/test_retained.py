"""What is kept in a TPM over restarts: what opens it there, and what the bus hears."""

from __future__ import annotations

import os

import pytest
from tpm2_pytss.constants import ESYS_TR

from custody.encoding import sha256
from custody.errors import Refused
from custody.formats import evidence
from custody.keys.hostapi import RETAINED_INDEXES, HostTpm, RetainedKey
from custody.keys.tpm_counters import COUNTER_FIRST, COUNTER_POOL
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm, certificate_spki
from custody.lab import bootlog
from custody.lab.firmware import pcr_extend
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import PCRS, loaded
from tests.device.tpm.relay import bus


def keep(host: HostTpm, secret: bytes, index: int = RETAINED_INDEXES[0]) -> RetainedKey:
    """Keep a secret for the boot state of now."""
    digest = sha256(*host.pcr_values(PCRS))
    return host.retain(secret, pcrs=PCRS, pcr_digest=digest, index=index)


def refusal(host: HostTpm, key: RetainedKey) -> str:
    """Return the check by which the TPM does not unseal."""
    with pytest.raises(Refused) as refused:
        host.unseal_retained(key)
    return refused.value.check


def test_what_is_kept_outlives_restarts(machine: Swtpm, host: HostTpm) -> None:
    """A reset, a restart and a suspend into the same boot state give the secret back."""
    secret = os.urandom(32)
    key = keep(host, secret)
    log = bootlog.record(bootlog.BootState())
    assert secret == host.unseal_retained(key)
    machine.reboot()
    assert "tpm.pcr" == refusal(host, key)
    bootlog.extend(machine, log)
    assert secret == host.unseal_retained(key)
    machine.suspend_resume()
    assert secret == host.unseal_retained(key)
    machine.transmit(pcr_extend(PCRS[0], bytes(32)))
    assert "tpm.pcr" == refusal(host, key)


def test_each_is_forgotten_by_itself(host: HostTpm) -> None:
    """Forgetting one secret leaves the others, and no copy of it opens."""
    one = keep(host, b"one", RETAINED_INDEXES[0])
    two = keep(host, b"two", RETAINED_INDEXES[-1])
    assert one.counter < host.forget_retained(one)
    assert "tpm.counter" == refusal(host, one)
    assert b"two" == host.unseal_retained(two)


def test_a_kept_key_cannot_be_edited(host: HostTpm) -> None:
    """Another counter, value or register in the host's own notes opens nothing."""
    key = keep(host, b"secret", RETAINED_INDEXES[0])
    other = keep(host, b"other", RETAINED_INDEXES[1])
    live = sha256(*host.pcr_values((0,))).hex()
    edits: list[dict[str, object]] = [
        {"counter_index": other.counter_index, "counter": other.counter},
        {"pcrs": (0,), "pcr_digest": live},
    ]
    for edit in edits:
        changed = RetainedKey(**{f: getattr(key, f) for f in key.__struct_fields__} | edit)
        assert "tpm.policy" == refusal(host, changed)


def test_neither_pool_touches_the_other(host: HostTpm) -> None:
    """A request's counters and those of what is kept are different indexes."""
    pool = range(COUNTER_FIRST, COUNTER_FIRST + COUNTER_POOL)
    assert not set(pool) & set(RETAINED_INDEXES)
    key = keep(host, b"secret")
    for busy in range(COUNTER_POOL):
        host.allocate_counter(range(COUNTER_FIRST, COUNTER_FIRST + busy))
    assert b"secret" == host.unseal_retained(key)
    assert set(pool) == {counter.index for counter in host.counters()}


def test_a_kept_secret_does_not_cross_the_bus(machine: Swtpm) -> None:
    """Neither keeping nor unsealing shows the secret, nor the owner's password, to the bus."""
    secret, password = os.urandom(32), b"the owner's password"
    with Tpm(machine.tcti).connect("set the owner's authorisation") as link:
        link.esys.hierarchy_change_auth(ESYS_TR.OWNER, password)
    ek = certificate_spki(TpmHost(machine.tcti).ek_certificate())
    with bus(machine) as relay:
        host = TpmHost(relay.tcti, ek_spki=ek, owner_auth=password)
        key = keep(host, secret)
        assert secret == host.unseal_retained(key)
        assert evidence.nv_name(evidence.counter_public(key.counter_index).pack()) in relay.traffic
        for hidden in (secret, secret[:16], password):
            assert hidden not in relay.traffic
    assert () == loaded(machine.tcti)
