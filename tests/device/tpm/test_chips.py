"""TPMs that can do less than most, or are shared: what is asked of them must still fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tpm2_pytss.constants import ESYS_TR

from custody.errors import Refused, Unavailable
from custody.formats import evidence
from custody.formats.evidence import Alg, Curve, EccPublic
from custody.formats.tpmek import H_3
from custody.keys import tpm_session
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_counters import COUNTER_FIRST, COUNTER_POOL
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm, certificate_spki
from custody.lab import firmware
from custody.lab.swtpm import Swtpm
from tests.device.tpm import abrmd
from tests.device.tpm.asking import NESTED, PCRS, ask
from tests.device.tpm.relay import bus
from tests.device.tpm.test_retained_updates import authorised, keep

_CC_GET_CAPABILITY = bytes.fromhex("0000017a")
_CAP_ECC_CURVES = bytes.fromhex("00000008")
_P256_ONLY = bytes.fromhex("00000001 0003")
_SLOTS = 3


def without_p384(command: bytes, answer: bytes) -> bytes:
    """Answer as a chip that knows P-256 only."""
    if command[6:10] != _CC_GET_CAPABILITY or answer[11:15] != _CAP_ECC_CURVES:
        return answer
    body = answer[:2] + bytes(4) + answer[6:15] + _P256_ONLY
    return body[:2] + len(body).to_bytes(4, "big") + body[6:]


def test_a_chip_without_p384_makes_a_p256_key(machine: Swtpm) -> None:
    """H falls back to P-256 and opens; a policy that demands P-384 is refused by name."""
    with bus(machine, without_p384) as relay:
        host = TpmHost(relay.tcti)
        asked = ask(host, NESTED)
        public = evidence.parse_public(asked.key.public)
        assert isinstance(public, EccPublic)
        assert Curve.P256 is public.curve
        assert asked.opens(asked.plan(["0/0", "0/1", "1/0"]))
        with pytest.raises(Refused, match="no P-384") as refused:
            host.create_host_key(bytes(32), PCRS, curve=Curve.P384)
        assert "tpm.curve" == refused.value.check


def test_a_chip_with_p384_uses_it(host: HostTpm) -> None:
    """Where nothing is demanded H is on the stronger curve."""
    public = evidence.parse_public(ask(host, NESTED).key.public)
    assert isinstance(public, EccPublic)
    assert Curve.P384 is public.curve


def test_an_ek_with_a_sha384_name_salts_every_session(
    machine: Swtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing but the P-384 EK, whose Name is SHA-384, H is made, certified and opened."""
    monkeypatch.setattr(tpm_session, "EK_TEMPLATES", (H_3,))
    spki = certificate_spki(TpmHost(machine.tcti).ek_certificate())
    public = evidence.parse_public(evidence.ek_public(spki))
    assert Alg.SHA384 is public.name_alg
    host = TpmHost(machine.tcti).salted_to(spki)
    asked = ask(host, NESTED)
    assert host.certify_creation(asked.key, bytes(32))
    assert asked.opens(asked.plan(["0/0", "0/2", "1/1"]))
    seed = os.urandom(64)
    sealed = host.seal_seed(asked.empty.auth_policy, seed)
    assert seed == host.unseal_seed(sealed, asked.plan(["0/0", "0/2", "1/1"]))
    assert host.certify_counter(asked.counter.index, bytes(32))


@contextmanager
def occupied(machine: Swtpm, slots: int) -> Iterator[None]:
    """Hold transient slots, as another program does that shares the TPM."""
    # By another name, because connecting to a software TPM by its own flushes what it finds.
    with Tpm(shared(machine)).connect("hold its slots") as link:
        for _ in range(slots):
            link.keep(link.create_primary(ESYS_TR.NULL, evidence.HOST_PARENT_TEMPLATE.pack()))
        yield


def shared(machine: Swtpm) -> str:
    """Name the TPM so that nobody's objects are flushed."""
    return machine.tcti.replace("swtpm:", "libtss2-tcti-swtpm.so.0:", 1)


@pytest.mark.parametrize("persistent", [True, False], ids=["EK persisted", "EK made each time"])
def test_two_free_slots_are_enough(machine: Swtpm, *, persistent: bool) -> None:
    """Everything a host asks fits beside another program's object in a TPM of three slots."""
    if not persistent:
        with Tpm(machine.tcti).connect("lose its EK") as link:
            ek = link.esys.tr_from_tpmpublic(0x81010001)
            link.esys.evict_control(ESYS_TR.OWNER, ek, 0x81010001)
    with occupied(machine, _SLOTS - 2):
        host = TpmHost(shared(machine))
        assert host.ak_public()
        asked = ask(host, NESTED)
        assert host.certify_creation(asked.key, bytes(32))
        sealed = host.seal_seed(asked.empty.auth_policy, b"seed")
        assert asked.opens(asked.plan(["0/0", "0/1", "1/0"]))
        assert b"seed" == host.unseal_seed(sealed, asked.plan(["0/0", "0/1", "1/0"]))
        host.increment(asked.counter.index)
        assert asked.counter.value < host.read_counter(asked.counter.index)
        assert host.certify_counter(asked.counter.index, bytes(32))
        kept = keep(host, secret := os.urandom(32))
        assert secret == host.unseal_retained(kept)
        shown = [authorised(who, "first", epoch=1) for who in ("erik", "elsa")]
        assert 2 == len(host.unseal_shares(kept, shown))


def test_a_full_tpm_is_unavailable(machine: Swtpm) -> None:
    """With every slot taken the TPM is busy, which is no refusal: later it works."""
    host = TpmHost(shared(machine))
    assert host.ak_public()
    with occupied(machine, _SLOTS), pytest.raises(Unavailable):
        host.create_host_key(bytes(32), PCRS)
    assert host.create_host_key(bytes(32), PCRS)


def test_two_hosts_programs_share_one_tpm(machine: Swtpm) -> None:
    """Requests made one between the other do not disturb each other."""
    first = ask(TpmHost(shared(machine)), NESTED)
    second = ask(TpmHost(shared(machine)), NESTED, busy=(first.counter.index,))
    signed = ["0/0", "0/1", "1/0"]
    assert second.opens(second.plan(signed))
    assert first.opens(first.plan(signed))


def test_the_pool_is_exactly_its_range(machine: Swtpm, host: HostTpm) -> None:
    """Counters of others, just outside the pool, are neither listed nor touched."""
    outside = COUNTER_FIRST + COUNTER_POOL
    other = evidence.NvPublic(
        index=outside,
        name_alg=Alg.SHA256,
        attributes=evidence.COUNTER_ATTRIBUTES,
        auth_policy=b"",
        data_bytes=8,
    )
    assert not firmware.response_code(machine.transmit(firmware.nv_define(other)))
    pool = {host.allocate_counter(()).index for _ in range(2 * COUNTER_POOL)}
    assert {COUNTER_FIRST} == pool
    assert {COUNTER_FIRST} == {counter.index for counter in host.counters()}


def test_a_resource_manager_is_no_obstacle(machine: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a manager that swaps objects and renumbers handles, the whole way goes well."""
    if lacking := abrmd.missing():
        pytest.skip(f"{lacking} is not installed")
    with abrmd.resource_manager(machine, monkeypatch) as tcti:
        host = TpmHost(tcti)
        asked = ask(host, NESTED)
        assert host.certify_creation(asked.key, bytes(32))
        sealed = host.seal_seed(asked.empty.auth_policy, b"seed")
        signed = ["0/0", "0/1", "1/0"]
        assert asked.opens(asked.plan(signed))
        assert b"seed" == host.unseal_seed(sealed, asked.plan(signed))
        host.increment(asked.counter.index)
        assert asked.counter.value < host.read_counter(asked.counter.index)
        assert host.certify_counter(asked.counter.index, bytes(32))
        with pytest.raises(Refused) as refused:
            asked.opens(asked.plan(signed))
        assert "tpm.counter" == refused.value.check
