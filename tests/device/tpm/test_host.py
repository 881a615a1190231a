"""A host's TPM: who it is, what it attests, its counters."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from custody.encoding import sha256
from custody.errors import CustodyError, Incomplete, Malformed, Refused, Unavailable
from custody.formats import evidence
from custody.formats.evidence import Alg, Attributes, Created, EccPublic, NvPublic, PcrBank, Quoted
from custody.keys import tpm_session
from custody.keys.hostapi import HostTpm
from custody.keys.tpm import open_host
from custody.keys.tpm_counters import COUNTER_FIRST, COUNTER_POOL
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import AK_HANDLE, TpmHost
from custody.keys.tpm_session import Tpm, certificate_spki, read_certificates
from custody.keys.uri import TpmUri
from custody.lab import bootlog, firmware
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import ALL, PCRS, ask, loaded


def ek_of(host: HostTpm) -> bytes:
    """Return the EK's public area as an enroller rebuilds it."""
    return evidence.ek_public(certificate_spki(host.ek_certificate()))


def test_the_ek_certificate_chains_to_the_vendor(machine: Swtpm, host: HostTpm) -> None:
    """The EK certificate, the intermediate beside it and the vendor's root are one chain."""
    leaf = x509.load_der_x509_certificate(host.ek_certificate())
    issuer = x509.load_der_x509_certificate(host.ek_intermediates()[0])
    root = x509.load_pem_x509_certificate(machine.vendor_root.read_bytes())
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)


def test_the_ak_is_made_once(machine: Swtpm, host: HostTpm) -> None:
    """The AK matches its template, and is the same for every object and after a reboot."""
    public = host.ak_public()
    assert evidence.matches(evidence.parse_public(public), evidence.AK_TEMPLATE)
    machine.reboot()
    assert public == TpmHost(machine.tcti).ak_public()


def test_another_key_in_the_aks_place_is_refused(machine: Swtpm, host: HostTpm) -> None:
    """An unrestricted signing key at the AK's handle attests nothing."""
    from tpm2_pytss.constants import ESYS_TR

    unrestricted = EccPublic(
        name_alg=Alg.SHA256,
        attributes=evidence.AK_TEMPLATE.attributes & ~Attributes.RESTRICTED,
        signing_hash=Alg.SHA256,
        curve=evidence.Curve.P256,
    )
    with Tpm(machine.tcti).connect("be tricked") as link:
        made = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, unrestricted.pack()))
        link.esys.evict_control(ESYS_TR.OWNER, made, AK_HANDLE)
    with pytest.raises(Refused) as refused:
        host.quote(bytes(32), PCRS)
    assert "tpm.ak" == refused.value.check


def test_a_credential_proves_ak_and_ek(host: HostTpm) -> None:
    """The challenge made from certificate and AK Name opens to its secret."""
    secret = os.urandom(32)
    blob, encrypted = make_credential(ek_of(host), evidence.name(host.ak_public()), secret)
    assert secret == host.activate(blob, encrypted)


def test_a_credential_works_with_an_ecc_ek(machine: Swtpm, host: HostTpm) -> None:
    """With the P-384 EK (template H-3) pinned, sessions and challenges use it."""
    from tpm2_pytss.constants import ESYS_TR

    from custody.formats.tpmek import H_3

    with Tpm(machine.tcti).connect("show its EK") as link:
        handle = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, H_3.creation))
        public = link.public(handle)
    pinned = TpmHost(machine.tcti, ek_spki=evidence.spki(public))
    secret = os.urandom(32)
    blob, encrypted = make_credential(public, evidence.name(host.ak_public()), secret)
    assert secret == pinned.activate(blob, encrypted)


def test_a_challenge_for_another_ak_is_refused(host: HostTpm) -> None:
    """A challenge that names another AK does not open."""
    blob, encrypted = make_credential(ek_of(host), b"\x00\x0b" + bytes(32), bytes(32))
    with pytest.raises(Refused) as refused:
        host.activate(blob, encrypted)
    assert "tpm.activate" == refused.value.check


def test_a_challenge_for_another_tpm_is_refused(host: HostTpm, other_machine: Swtpm) -> None:
    """A challenge for another TPM's EK does not open though it names our AK; ours still do."""
    other = TpmHost(other_machine.tcti)
    blob, encrypted = make_credential(ek_of(other), evidence.name(host.ak_public()), bytes(32))
    with pytest.raises(Refused) as refused:
        host.activate(blob, encrypted)
    assert "tpm.activate" == refused.value.check
    blob, encrypted = make_credential(ek_of(host), evidence.name(host.ak_public()), bytes(32))
    assert bytes(32) == host.activate(blob, encrypted)


@pytest.mark.parametrize("blob", [b"", bytes(40), bytes(600)])
def test_a_challenge_of_junk_is_turned_away(machine: Swtpm, host: HostTpm, blob: bytes) -> None:
    """Junk for a challenge is one of our errors, and leaves nothing loaded."""
    with pytest.raises((Malformed, Refused)):
        host.activate(blob, blob)
    assert loaded(machine.tcti) == ()


def test_an_ek_other_than_the_enrolled_one_is_refused(machine: Swtpm, other_machine: Swtpm) -> None:
    """A host whose enrolment names another EK starts no session with this TPM."""
    enrolled = certificate_spki(TpmHost(other_machine.tcti).ek_certificate())
    host = open_host(TpmUri(tcti=machine.tcti), ek_spki=enrolled)
    with pytest.raises(Refused) as refused:
        host.create_host_key(bytes(32), PCRS)
    assert "tpm.ek" == refused.value.check


def test_an_ek_in_no_persistent_place_is_made_again(machine: Swtpm, host: HostTpm) -> None:
    """A TPM whose EK handle is empty, or holds another key, still salts sessions to its EK."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("lose its EK") as link:
        ek = link.esys.tr_from_tpmpublic(0x81010001)
        link.esys.evict_control(ESYS_TR.OWNER, ek, 0x81010001)
    assert host.create_host_key(bytes(32), PCRS)
    with Tpm(machine.tcti).connect("put another key there") as link:
        other = link.keep(link.create_primary(ESYS_TR.OWNER, evidence.AK_TEMPLATE.pack()))
        link.esys.evict_control(ESYS_TR.OWNER, other, 0x81010001)
    assert host.create_host_key(bytes(32), PCRS)
    assert loaded(machine.tcti) == ()


def test_a_tpm_without_certificates_makes_the_certified_ek(
    host: HostTpm, machine: Swtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no certificate is found, sessions are salted to the EK of template L-1."""
    expected = ek_of(host)
    monkeypatch.setattr(tpm_session, "EK_TEMPLATES", ())
    with pytest.raises(Unavailable, match="no certificate"):
        host.ek_certificate()
    with Tpm(machine.tcti).connect("be taken at its word") as link:
        assert link.endorsement_key is not None
        assert expected == link.endorsement_key.public
        assert link.salted_session()


def test_a_quote_is_what_it_says(host: HostTpm) -> None:
    """A quote names exactly the registers asked for, their digest, our data and its AK."""
    qualifying = os.urandom(32)
    quote = host.quote(qualifying, PCRS)
    ak = host.ak_public()
    evidence.verify_attest(ak, quote.attest, quote.signature)
    attest = evidence.parse_attest(quote.attest)
    digest = sha256(*host.pcr_values(PCRS))
    assert attest.body == Quoted(banks=(PcrBank(Alg.SHA256, PCRS),), pcr_digest=digest)
    assert qualifying == attest.extra_data
    assert attest.signer == evidence.qualified_name(evidence.RH_ENDORSEMENT, evidence.name(ak))
    assert attest.clock.safe


def test_a_creation_is_what_it_says(host: HostTpm) -> None:
    """A certified creation names H, the boot state and a parent in the NULL hierarchy."""
    asked = ask(host, ALL)
    certified = host.certify_creation(asked.key, asked.empty.terms)
    evidence.verify_attest(host.ak_public(), *certified)
    attest = evidence.parse_attest(certified.attest)
    data = evidence.parse_creation_data(asked.key.creation_data)
    assert attest.body == Created(
        object_name=evidence.name(asked.key.public),
        creation_hash=sha256(asked.key.creation_data),
    )
    parent = evidence.name(asked.key.parent_public)
    assert (parent, b"") == (data.parent_name, data.outside_info)
    assert data.parent_qualified_name == evidence.qualified_name(evidence.RH_NULL, parent)
    assert data.banks == (PcrBank(Alg.SHA256, PCRS),)
    assert data.pcr_digest == asked.empty.conditions.pcr_digest


def test_registers_are_read_in_the_order_asked(machine: Swtpm, host: HostTpm) -> None:
    """More registers than one command returns come back as the boot log replays them."""
    values = bootlog.pcrs(bootlog.record(bootlog.BootState()))
    asked = tuple(reversed(range(24)))
    assert tuple(values[pcr] for pcr in asked) == host.pcr_values(asked)


def test_counters_are_exactly_the_template(host: HostTpm) -> None:
    """A counter's public area and Name are those every verifier recomputes."""
    counter = host.allocate_counter(())
    assert counter.public == evidence.counter_public(counter.index).pack()
    assert counter.name == evidence.nv_name(counter.public)
    assert (counter,) == host.counters()
    assert counter.value == host.read_counter(counter.index)


def test_the_pool_runs_out_by_name(host: HostTpm) -> None:
    """With every counter busy the error names each of them; a free one is given again."""
    busy = [host.allocate_counter(range(COUNTER_FIRST, COUNTER_FIRST + n)).index for n in range(4)]
    assert busy == list(range(COUNTER_FIRST, COUNTER_FIRST + COUNTER_POOL))
    with pytest.raises(Incomplete) as incomplete:
        host.allocate_counter(busy)
    assert tuple(f"0x{index:08x}" for index in busy) == incomplete.value.missing
    assert busy[2] == host.allocate_counter([*busy[:2], busy[3]]).index


def test_a_counter_never_repeats(machine: Swtpm, host: HostTpm) -> None:
    """A counter undefined and defined again goes on above every value it had."""
    from tpm2_pytss.constants import ESYS_TR

    before = host.allocate_counter(())
    with Tpm(machine.tcti).connect("lose a counter") as link:
        link.esys.nv_undefine_space(link.esys.tr_from_tpmpublic(before.index), ESYS_TR.OWNER)
    assert before.value < host.allocate_counter(()).value


def test_an_index_that_is_no_counter_is_refused(machine: Swtpm, host: HostTpm) -> None:
    """An ordinary NV index in a counter's place is refused, not counted with."""
    ordinary = NvPublic(
        index=COUNTER_FIRST,
        name_alg=Alg.SHA256,
        attributes=evidence.COUNTER_ATTRIBUTES & ~evidence.NvAttributes.COUNTER,
        auth_policy=b"",
        data_bytes=8,
    )
    answer = machine.transmit(firmware.nv_define(ordinary))
    assert 0 == firmware.response_code(answer)
    with pytest.raises(Refused):
        host.allocate_counter(())
    with pytest.raises(Refused) as refused:
        host.increment(COUNTER_FIRST)
    assert "tpm.counter" == refused.value.check


def test_an_owner_authorisation_is_used(machine: Swtpm, tmp_path: Path) -> None:
    """With the owner's authorisation set, only a host that has it makes AK and counters."""
    from tpm2_pytss.constants import ESYS_TR

    with Tpm(machine.tcti).connect("set the owner's authorisation") as link:
        link.esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with pytest.raises(Refused):
        TpmHost(machine.tcti).ak_public()
    source = tmp_path / "owner"
    source.write_bytes(b"owner\n")
    source.chmod(0o600)
    host = open_host(TpmUri(tcti=machine.tcti, pin_source=str(source)))
    assert host.ak_public()
    assert host.allocate_counter(()).index == COUNTER_FIRST


def test_every_call_leaves_nothing_loaded(machine: Swtpm, host: HostTpm) -> None:
    """After each kind of call the TPM holds no object and no session."""
    asked = ask(host, ALL)
    calls = (
        host.ek_certificate,
        host.ek_intermediates,
        host.ak_public,
        host.clock,
        host.counters,
        lambda: host.quote(bytes(32), PCRS),
        lambda: host.certify_creation(asked.key, bytes(32)),
        lambda: host.seal_seed(bytes(32), b"seed"),
        lambda: host.read_counter(asked.counter.index),
        lambda: host.certify_counter(asked.counter.index, bytes(32)),
    )
    for call in calls:
        assert call()
        assert loaded(machine.tcti) == ()
    host.increment(asked.counter.index)
    assert loaded(machine.tcti) == ()


def test_a_conversation_leaves_nothing_loaded(machine: Swtpm, host: HostTpm) -> None:
    """What its parts share is flushed when it ends, also where it ends by an error."""
    asked = ask(host, ALL)
    for signed, index in ((["0", "1"], asked.counter.index), (["0"], 1)):
        with suppress(Incomplete, Refused, Unavailable), host.conversation():
            host.certify_creation(asked.key, bytes(32))
            assert asked.opens(asked.plan(signed))
            host.increment(index)
        assert loaded(machine.tcti) == ()


def test_an_absent_tpm_is_unavailable(tmp_path: Path) -> None:
    """Without a TPM every call says so, in one of our words."""
    host = TpmHost(f"swtpm:path={tmp_path / 'none.sock'}")
    with pytest.raises(Unavailable, match="no TPM"):
        host.clock()
    with pytest.raises(Unavailable):
        TpmHost("nonsense:").ak_public()


def test_a_tpm_switched_off_is_unavailable(machine: Swtpm, host: HostTpm) -> None:
    """A TPM that goes away between two calls is unavailable, and answers again when it is back."""
    assert host.clock().safe
    machine.stop()
    with pytest.raises(Unavailable):
        host.clock()
    machine.start()
    assert host.clock().safe


def test_a_power_cut_leaves_the_clock_unsafe(machine: Swtpm, host: HostTpm) -> None:
    """Without an orderly shutdown ``safe`` is NO, as verifiers must see it."""
    machine.power_cut()
    assert not host.clock().safe


def test_certificates_are_cut_from_padding() -> None:
    """Certificates in a row are told apart, and what a vendor filled up with is dropped."""
    one, two = b"\x30\x82\x00\x01a", b"\x30\x82\x00\x02bc"
    assert (one, two) == read_certificates(one + two + bytes(8))
    assert (one,) == read_certificates(one + b"\xff" * 8)
    assert read_certificates(b"\x30\x82\xff\xff") == ()


def test_a_secret_too_long_for_a_credential_is_a_mistake() -> None:
    """A credential carries 1 to 32 bytes."""
    with pytest.raises((ValueError, CustodyError)):
        make_credential(b"", b"", bytes(33))
