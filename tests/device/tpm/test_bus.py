"""Somebody on the bus between host and TPM."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.encoding import key_id, sha256
from custody.errors import Refused
from custody.formats import evidence
from custody.keys.api import KeyRole
from custody.keys.hostapi import RETAINED_INDEXES
from custody.keys.tpm import open_token
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm, certificate_spki
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from custody.ops.tls import of_ek
from tests.device.tpm.asking import ALL, ask
from tests.device.tpm.relay import bus

_CC_GET_CAPABILITY = bytes.fromhex("0000017a")
_CC_NV_READ = bytes.fromhex("0000014e")
_CC_READ_PUBLIC = bytes.fromhex("00000173")
_CC_CREATE_PRIMARY = bytes.fromhex("00000131")
_CC_ECDH_ZGEN = bytes.fromhex("00000154")


def test_the_recorder_hears_what_is_not_encrypted(machine: Swtpm) -> None:
    """What is public passes the bus in the clear, so the recorder would hear a secret too."""
    with bus(machine) as relay:
        qualifying = os.urandom(32)
        TpmHost(relay.tcti).quote(qualifying, (0,))
        assert qualifying in relay.traffic


def test_a_shared_secret_does_not_cross_the_bus(machine: Swtpm) -> None:
    """Neither coordinate of the point H agrees on is in the TPM's traffic."""
    with bus(machine) as relay:
        asked = ask(TpmHost(relay.tcti), ALL)
        opened = asked.host.open_host_key(asked.key, asked.plan(["0", "1"]))
        ours = ec.generate_private_key(opened.curve)
        before = len(relay.traffic)
        shared = opened.exchange(ec.ECDH(), ours.public_key())
        assert shared == ours.exchange(ec.ECDH(), opened.public_key())
        assert len(relay.traffic) > before
        assert shared not in relay.traffic
        assert shared[:16] not in relay.traffic


def test_seeds_and_credentials_do_not_cross_the_bus(machine: Swtpm) -> None:
    """A sealed seed and an activated secret are not in the TPM's traffic."""
    seed, secret = os.urandom(64), os.urandom(32)
    with bus(machine) as relay:
        host = TpmHost(relay.tcti)
        asked = ask(host, ALL)
        sealed = host.seal_seed(asked.empty.auth_policy, seed)
        assert seed == host.unseal_seed(sealed, asked.plan(["0", "1"]))
        ek = evidence.ek_public(certificate_spki(host.ek_certificate()))
        challenge = make_credential(ek, evidence.name(host.ak_public()), secret)
        assert secret == host.activate(*challenge)
        for hidden in (seed, seed[:16], secret, secret[:16]):
            assert hidden not in relay.traffic


def test_a_pin_does_not_cross_the_bus(machine: Swtpm) -> None:
    """Making and using a key with a PIN shows the PIN to nobody on the bus."""
    pin = b"correct horse battery"
    with (
        bus(machine) as relay,
        open_token(TpmUri(tcti=relay.tcti), pin=lambda _prompt, /: bytearray(pin)) as token,
    ):
        key = token.make(KeyRole.SHARE, "alice", ec.SECP256R1())
        ours = ec.generate_private_key(ec.SECP256R1())
        shared = key.exchange(ec.ECDH(), ours.public_key())
        assert shared == ours.exchange(ec.ECDH(), key.public_key())
        assert pin not in relay.traffic
        assert shared not in relay.traffic


def test_the_owners_authorisation_does_not_cross_the_bus(machine: Swtpm) -> None:
    """Whatever a host does as the owner: make AK, TLS key and counters, keep a key, forget it."""
    from tpm2_pytss.constants import ESYS_TR

    owner = b"an owner's word"
    with Tpm(machine.tcti).connect("set the owner's authorisation") as link:
        link.esys.hierarchy_change_auth(ESYS_TR.OWNER, owner)
    with bus(machine) as relay:
        host = TpmHost(relay.tcti, owner_auth=owner)
        host.ak_public()
        host.certify_tls_key(bytes(32))
        host.allocate_counter(())
        pcr_digest = sha256(*host.pcr_values((0,)))
        kept = host.retain(b"x", pcrs=(0,), pcr_digest=pcr_digest, index=RETAINED_INDEXES[0])
        assert b"x" == host.unseal_retained(kept)
        host.forget_retained(kept)
        assert host.ak_public() in relay.traffic
        assert owner not in relay.traffic


def test_a_key_slipped_in_for_the_ek_is_refused(machine: Swtpm) -> None:
    """Somebody who shows another EK to salt the session with learns nothing: no session starts."""
    machine_ek = evidence.ek_public(certificate_spki(TpmHost(machine.tcti).ek_certificate()))

    def slip_in(command: bytes, answer: bytes) -> bytes:
        if command[6:10] not in (_CC_READ_PUBLIC, _CC_CREATE_PRIMARY):
            return answer
        at = answer.find(machine_ek)
        if at < 0:
            return answer
        changed = machine_ek[:-1] + bytes([machine_ek[-1] ^ 2])
        return answer[:at] + changed + answer[at + len(machine_ek) :]

    with bus(machine, slip_in) as relay, pytest.raises(Refused) as refused:
        TpmHost(relay.tcti).seal_seed(bytes(32), b"seed")
    # Newer tss2 notices by itself that Name and public area differ.
    assert refused.value.check in ("tpm.ek", "tpm.session")


def test_an_altered_answer_is_refused(machine: Swtpm) -> None:
    """An answer changed on its way fails its HMAC."""

    def flip(command: bytes, answer: bytes) -> bytes:
        if command[6:10] != _CC_ECDH_ZGEN:
            return answer
        return answer[:30] + bytes([answer[30] ^ 1]) + answer[31:]

    with bus(machine, flip) as relay:
        asked = ask(TpmHost(relay.tcti), ALL)
        with pytest.raises(Refused) as refused:
            asked.opens(asked.plan(["0", "1"]))
        assert "tpm.session" == refused.value.check


def test_another_tpm_in_the_enrolled_ones_place_is_refused(
    machine: Swtpm, other_machine: Swtpm
) -> None:
    """Somebody who answers with a whole TPM of his own, certificate and all, gets no secret."""
    enrolled = certificate_spki(TpmHost(machine.tcti).ek_certificate())
    with bus(other_machine) as relay:
        host = TpmHost(relay.tcti)
        # By itself it is a sound TPM by the same vendor: only the enrolment tells them apart.
        assert host.seal_seed(bytes(32), b"a secret of the other one")
        before = len(relay.traffic)
        pinned = host.salted_to(enrolled)
        for ask_for in (
            lambda: pinned.seal_seed(bytes(32), b"a secret of ours"),
            lambda: pinned.create_host_key(bytes(32), (0,)),
        ):
            with pytest.raises(Refused) as refused:
                ask_for()
            assert "tpm.ek" == refused.value.check
        assert len(relay.traffic) > before
        assert b"a secret of ours" not in relay.traffic


def test_a_certificate_slipped_in_for_the_enrolled_one_changes_nothing(
    machine: Swtpm, other_machine: Swtpm
) -> None:
    """Whatever certificate is read on the bus, sessions are salted to the enrolled EK."""
    ours = TpmHost(machine.tcti).ek_certificate()
    theirs = TpmHost(other_machine.tcti).ek_certificate()

    def slip_in(command: bytes, answer: bytes) -> bytes:
        at = answer.find(ours[:64])
        if command[6:10] != _CC_NV_READ or at < 0:
            return answer
        changed = theirs[: len(ours)].ljust(len(ours), b"\xff")
        return answer[:at] + changed + answer[at + len(ours) :]

    with bus(machine, slip_in) as relay:
        host = TpmHost(relay.tcti)
        assert host.ek_certificate() != ours
        with pytest.raises(Refused) as refused:
            host.seal_seed(bytes(32), b"seed")
        assert "tpm.ek" == refused.value.check
        assert host.salted_to(certificate_spki(ours)).seal_seed(bytes(32), b"seed")


def test_a_tls_key_is_asked_of_the_named_ek_only(machine: Swtpm, other_machine: Swtpm) -> None:
    """With the EK named, a TPM swapped in makes no key, whatever certificate the bus shows."""
    ours = TpmHost(machine.tcti).ek_certificate()
    named = key_id(certificate_spki(ours))
    with pytest.raises(Refused) as refused:
        of_ek(TpmHost(other_machine.tcti), named)
    assert "tpm.ek" == refused.value.check

    class Shown(TpmHost):
        """Somebody on the bus shows our certificate before his own TPM."""

        def ek_certificate(self) -> bytes:
            return ours

    asking = of_ek(Shown(other_machine.tcti, owner_auth=b"an owner's word"), named)
    with pytest.raises(Refused) as refused:
        asking.tls_key()
    assert "tpm.ek" == refused.value.check
    assert of_ek(TpmHost(machine.tcti), named).tls_key()


def test_a_kept_key_is_not_taken_for_cleared_on_somebodys_word(machine: Swtpm) -> None:
    """Who leaves its counter out of what the TPM lists has no key given up for lost."""
    ek = certificate_spki(TpmHost(machine.tcti).ek_certificate())
    own = TpmHost(machine.tcti).salted_to(ek)
    pcr_digest = sha256(*own.pcr_values((0,)))
    kept = own.retain(b"x", pcrs=(0,), pcr_digest=pcr_digest, index=RETAINED_INDEXES[0])
    listed = kept.counter_index.to_bytes(4, "big")
    left_out = []

    def leave_out(command: bytes, answer: bytes) -> bytes:
        if command[6:10] != _CC_GET_CAPABILITY or listed not in answer:
            return answer
        left_out.append(command)
        return answer.replace(listed, (kept.counter_index + 0x100).to_bytes(4, "big"))

    with bus(machine, leave_out) as relay:
        with pytest.raises(Refused) as refused:
            TpmHost(relay.tcti, ek_spki=ek).retained_standing(kept)
        assert "tpm.session" == refused.value.check
    assert left_out
    assert "alive" == own.retained_standing(kept).life
