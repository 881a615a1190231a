"""H in a TPM: what opens it, and everything the TPM itself refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from tpm2_pytss.constants import ESYS_TR, TPM2_CC

from custody.crypto import tpmpolicy
from custody.crypto.quorum import maximal_unsatisfying, minimal_sets
from custody.crypto.signature import sign
from custody.errors import Incomplete, Refused
from custody.formats import evidence
from custody.formats.evidence import Curve
from custody.keys import tpm_hostkey
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm
from custody.lab.firmware import pcr_extend
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import ALL, MANY, NESTED, PCRS, Asked, Tree, ask, loaded
from tests.device.tpm.relay import bus

TREES = pytest.mark.parametrize("tree", [NESTED, MANY, ALL], ids=["nested", "2 of 5", "all of 2"])


def refusal(asked: Asked, signed: Sequence[str]) -> str:
    """Return the check by which the TPM refuses to open H."""
    return refused(asked, asked.plan(signed).signatures)


def refused(asked: Asked, signatures: Mapping[str, bytes]) -> str:
    """Return the check by which the TPM refuses these signatures."""
    with pytest.raises(Refused) as caught:
        asked.opens(replace(asked.empty, signatures=signatures))
    return caught.value.check


@TREES
def test_every_minimal_set_opens(host: HostTpm, tree: Tree) -> None:
    """H opens for each minimal set of officers, and again while it lives."""
    asked = ask(host, tree)
    for minimal in minimal_sets(tree):
        assert asked.opens(asked.plan(minimal))


@TREES
def test_one_short_is_incomplete(host: HostTpm, tree: Tree) -> None:
    """No maximal unsatisfying set is even shown to the TPM: the error says who is missing."""
    asked = ask(host, tree)
    for short in maximal_unsatisfying(tree):
        with pytest.raises(Incomplete) as incomplete:
            asked.opens(asked.plan(short))
        assert incomplete.value.missing


@TREES
def test_the_tpm_refuses_a_missing_officers_place_however_it_is_filled(
    host: HostTpm, tree: Tree
) -> None:
    """One leaf short, the TPM refuses another officer's, another request's or a stranger's
    signature in the missing place.
    """
    asked = ask(host, tree)
    short = maximal_unsatisfying(tree)[0]
    good = dict(asked.plan(short).signatures)
    absent = sorted(asked.keys.keys() - short)
    stranger = ec.generate_private_key(ec.SECP256R1())
    message = bytes(4) + asked.empty.terms
    fillings = [
        {leaf: sign(asked.keys[next(iter(short))], message) for leaf in absent},
        {leaf: sign(asked.keys[leaf], bytes(4) + bytes(32)) for leaf in absent},
        {leaf: sign(asked.keys[leaf], b"DSSEv1 " + asked.empty.terms) for leaf in absent},
        {leaf: sign(stranger, message) for leaf in absent},
    ]
    for filling in fillings:
        assert "tpm.quorum" == refused(asked, good | filling)


@TREES
def test_leaving_out_the_missing_officers_step_is_refused(
    host: HostTpm, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With our own quorum check gone, and the missing PolicySigned left out, the TPM refuses."""
    asked = ask(host, tree)
    short = maximal_unsatisfying(tree)[0]
    everything = tpmpolicy.steps

    def without_check(*args: object, **kwargs: object) -> tuple[tpmpolicy.Step, ...]:
        names = tpmpolicy.key_names(asked.empty.officers)
        found = everything(tree, tuple(asked.keys), names=names, ref=asked.empty.terms)
        return tuple(
            step for step in found if not isinstance(step, tpmpolicy.Signed) or step.leaf in short
        )

    monkeypatch.setattr(tpmpolicy, "steps", without_check)
    assert refused(asked, asked.plan(short).signatures) in ("tpm.command", "tpm.policy")


def test_no_quorum_at_all_is_refused(host: HostTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing the TPM everything but the quorum opens nothing."""
    asked = ask(host, NESTED)
    monkeypatch.setattr(tpmpolicy, "steps", lambda *_args, **_kwargs: ())
    assert "tpm.policy" == refused(asked, {})


def test_two_requests_approvals_do_not_add_up(host: HostTpm) -> None:
    """One officer's signature on each of two requests opens neither."""
    first = ask(host, ALL)
    second = ask(host, ALL, keys=first.keys, busy=(first.counter.index,))
    mixed = {
        "0": first.plan(["0"]).signatures["0"],
        "1": second.plan(["1"]).signatures["1"],
    }
    assert "tpm.quorum" == refused(first, mixed)
    assert "tpm.quorum" == refused(second, mixed)


def test_a_plan_for_another_request_is_refused(host: HostTpm) -> None:
    """A fully signed plan of one request does not open the key of another."""
    first = ask(host, ALL)
    second = ask(host, ALL, keys=first.keys, busy=(first.counter.index,))
    crossed = replace(first, key=second.key)
    assert "tpm.policy" == refusal(crossed, ["0", "1"])


def test_a_changed_register_is_refused(machine: Swtpm, host: HostTpm) -> None:
    """Once a register of the policy is extended, H does not open."""
    asked = ask(host, ALL)
    machine.transmit(pcr_extend(4, bytes(32)))
    assert "tpm.pcr" == refusal(asked, ["0", "1"])


def test_a_register_outside_the_policy_does_not_matter(machine: Swtpm, host: HostTpm) -> None:
    """Registers the policy does not select may change."""
    asked = ask(host, ALL)
    machine.transmit(pcr_extend(10, bytes(32)))
    assert asked.opens(asked.plan(["0", "1"]))


def test_a_burnt_counter_is_refused(host: HostTpm) -> None:
    """After the increment H opens nothing more."""
    asked = ask(host, ALL)
    assert asked.opens(asked.plan(["0", "1"]))
    host.increment(asked.counter.index)
    assert asked.counter.value + 1 == host.read_counter(asked.counter.index)
    assert "tpm.counter" == refusal(asked, ["0", "1"])


def test_a_new_request_on_a_counter_burns_the_old_one(host: HostTpm) -> None:
    """Allocating a counter again ends whatever was requested on it before."""
    old = ask(host, ALL)
    ask(host, ALL)
    assert "tpm.counter" == refusal(old, ["0", "1"])


def test_a_passed_deadline_is_refused(machine: Swtpm, host: HostTpm) -> None:
    """H opens until the deadline of the TPM's own clock, and not after it."""
    asked = ask(host, ALL)
    assert asked.opens(asked.plan(["0", "1"]))
    with Tpm(machine.tcti).connect("be put forward") as link:
        link.esys.clock_set(asked.empty.conditions.deadline_ms)
    assert "tpm.deadline" == refusal(asked, ["0", "1"])


@pytest.mark.parametrize(
    "event", [Swtpm.reboot, Swtpm.power_cut, Swtpm.suspend_resume, Swtpm.shutdown_restart]
)
def test_every_power_event_is_refused(machine: Swtpm, host: HostTpm, event: object) -> None:
    """Reset, power cut, suspend and restart each end H, its seed and its certification."""
    asked = ask(host, ALL)
    sealed = host.seal_seed(asked.empty.auth_policy, b"s" * 64)
    assert callable(event)
    event(machine)
    assert "tpm.rebooted" == refusal(asked, ["0", "1"])
    with pytest.raises(Refused) as unsealing:
        host.unseal_seed(sealed, asked.plan(["0", "1"]))
    assert "tpm.rebooted" == unsealing.value.check


def test_clearing_the_tpm_does_not_bring_the_deadline_back(machine: Swtpm, host: HostTpm) -> None:
    """TPM2_Clear sets the clock back but opens nothing: the boot counts are in the policy too."""
    asked = ask(host, ALL)
    with Tpm(machine.tcti).connect("be cleared") as link:
        link.esys.clear(ESYS_TR.LOCKOUT)
    assert "tpm.rebooted" == refusal(asked, ["0", "1"])


@pytest.mark.parametrize(
    ("curve", "kem", "kdf"),
    [(Curve.P256, KEM.P256, KDF.HKDF_SHA256), (Curve.P384, KEM.P384, KDF.HKDF_SHA384)],
)
def test_h_opens_standard_hpke(host: HostTpm, curve: Curve, kem: KEM, kdf: KDF) -> None:
    """H is the private key of a plain RFC 9180 recipient."""
    asked = ask(host, ALL, curve=curve)
    opened = host.open_host_key(asked.key, asked.plan(["0", "1"]))
    suite = hpke.Suite(kem, kdf, AEAD.AES_256_GCM)
    sealed = suite.encrypt(b"a share", opened.public_key(), b"info")
    assert b"a share" == suite.decrypt(sealed, opened, b"info")


def test_without_a_curve_h_is_on_p384(host: HostTpm) -> None:
    """This TPM has P-384, so H is made there."""
    public = evidence.parse_public(host.create_host_key(bytes(32), PCRS).public)
    assert evidence.matches(public, evidence.host_key_template(Curve.P384, bytes(32)))


def test_two_host_keys_differ(host: HostTpm) -> None:
    """H is random: the same policy twice gives two keys."""
    one, other = (host.create_host_key(bytes(32), PCRS) for _ in range(2))
    assert one.public != other.public
    assert one.parent_public == other.parent_public


def test_the_seed_opens_with_the_same_policy(host: HostTpm) -> None:
    """A sealed seed comes back under the full plan and not under one that is short."""
    asked = ask(host, NESTED)
    sealed = host.seal_seed(asked.empty.auth_policy, b"s" * 64)
    assert b"s" * 64 == host.unseal_seed(sealed, asked.plan(["0/0", "0/2", "1/1"]))
    with pytest.raises(Incomplete):
        host.unseal_seed(sealed, asked.plan(["0/0", "1/1"]))


def test_h_neither_signs_nor_leaves(host: HostTpm) -> None:
    """What would sign with H or export it is refused."""
    asked = ask(host, ALL)
    opened = host.open_host_key(asked.key, asked.plan(["0", "1"]))
    for attempt in (
        opened.private_numbers,
        lambda: opened.private_bytes(None, None, None),  # type: ignore[arg-type]
        lambda: opened.sign(b"", None),  # type: ignore[arg-type]
    ):
        with pytest.raises(Refused):
            attempt()


def test_nothing_stays_loaded(machine: Swtpm, host: HostTpm) -> None:
    """Fifty opens, good and bad, leave no object and no session in the TPM."""
    asked = ask(host, ALL)
    bad = dict(asked.plan(["0"]).signatures) | {"1": sign(asked.keys["0"], bytes(36))}
    for turn in range(50):
        if turn % 2:
            assert "tpm.quorum" == refused(asked, bad)
        else:
            assert asked.opens(asked.plan(["0", "1"]))
    assert loaded(machine.tcti) == ()


def test_what_a_killed_process_left_is_flushed(machine: Swtpm, host: HostTpm) -> None:
    """Handles of a process that died do not fill the TPM's three slots."""
    for _ in range(4):
        with Tpm(machine.tcti).connect("die") as link:
            link.salted_session()
            link.load_endorsement_key()
            link._loaded.clear()
    assert loaded(machine.tcti) != ()
    assert host.clock().safe
    assert loaded(machine.tcti) == ()


def test_within_a_conversation_every_use_is_shown_the_whole_policy(host: HostTpm) -> None:
    """A session that opened H once opens nothing by that: not without officers, not burnt."""
    asked = ask(host, ALL)
    bad = dict(asked.plan(["0"]).signatures) | {"1": sign(asked.keys["0"], bytes(36))}
    with host.conversation():
        for _ in range(3):
            assert asked.opens(asked.plan(["0", "1"]))
            assert "tpm.quorum" == refused(asked, bad)
        host.increment(asked.counter.index)
        assert "tpm.counter" == refusal(asked, ["0", "1"])


def test_a_session_that_was_used_is_back_at_the_start(machine: Swtpm, host: HostTpm) -> None:
    """The TPM itself refuses H to a session whose policy was spent on another use."""
    asked = ask(host, ALL)
    with host.conversation():
        assert asked.opens(asked.plan(["0", "1"]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tpm_hostkey, "_run_policy", lambda *_: None)
            assert "tpm.policy" == refusal(asked, ["0", "1"])


def test_a_conversation_opens_three_shares_in_one_session(machine: Swtpm) -> None:
    """One salted session and one loading of H are enough, and the policy is shown each time."""
    asked_for: Counter[TPM2_CC] = Counter()

    def count(command: bytes, answer: bytes) -> bytes:
        asked_for[TPM2_CC(int.from_bytes(command[6:10], "big"))] += 1
        return answer

    with bus(machine, count) as relay:
        host = TpmHost(relay.tcti)
        asked = ask(host, NESTED)
        plan = asked.plan(["0/0", "0/1", "1/0"])
        asked_for.clear()
        with host.conversation():
            assert all(asked.opens(plan) for _ in range(3))
    once = (TPM2_CC.StartAuthSession, TPM2_CC.Load)
    assert [1, 1] == [asked_for[command] for command in once]
    thrice = (TPM2_CC.PolicyPCR, TPM2_CC.PolicyNV, TPM2_CC.ECDH_ZGen)
    assert [3, 3, 3] == [asked_for[command] for command in thrice]
    assert 9 == asked_for[TPM2_CC.PolicySigned]
