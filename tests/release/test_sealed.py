"""A key that the quorum let a host keep for restarts: what opens it, and what takes it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from custody.errors import Incomplete, Refused
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.keys.hostapi import RETAINED_INDEXES
from custody.keys.tpm import open_host
from custody.keys.uri import TpmUri
from custody.lab import bootlog, firmware
from custody.ops.account import gaps_of
from custody.ops.archive import read_archive
from custody.ops.bundle import Bundle
from custody.ops.collect import collect
from custody.ops.kept import Kept, forget
from custody.ops.open import opened_receipt, unlocked
from custody.ops.overdue import overdue
from custody.ops.receipts import attested_receipt, burn, forgotten_statement, give_up
from custody.ops.unseal import unseal_release
from tests.release.cast import NOW, PCRS, Cast
from tests.release.collected import judged
from tests.release.conftest import fresh
from tests.release.expect import QUORUM, audit, case_of, failed, incomplete, refused
from tests.release.test_release import same_tree


@pytest.fixture
def cast(cast: Cast) -> Cast:
    """Give a cast whose policy lets hosts keep keys."""
    cast.next_policy(modes=("once", "sealed"))
    return cast


def kept(cast: Cast, label: str = "model") -> tuple[Bundle, Statement[Request], list[bytes]]:
    """Release a bundle to a host that keeps its key."""
    bundle = cast.seal(label)
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / f"{label}.first")
    return bundle, request, answers


def unseal(cast: Cast, bundle: Bundle, target: Path, **when: object) -> None:
    """Unseal as the host does at boot."""
    unseal_release(
        bundle,
        target,
        situation=cast.situation("host", **when),  # type: ignore[arg-type]
        tpm=cast.tpm,
        place=cast.place,
        event_log=cast.event_log,
    )


def restart(cast: Cast, state: bootlog.BootState | None = None) -> None:
    """Reboot into a state, and come back with a new process."""
    cast.machine.reboot()
    cast.boot(state)
    cast.tpm = open_host(TpmUri(tcti=cast.machine.tcti))


def test_a_kept_key_opens_after_every_restart(cast: Cast) -> None:
    """After each reboot into the same state the model comes out byte for byte, with no approval."""
    bundle, _, _ = kept(cast)
    for turn in range(3):
        restart(cast)
        unseal(cast, bundle, cast.folder / f"out-{turn}")
        assert same_tree(cast.folder / "model", cast.folder / f"out-{turn}")


def test_it_opens_after_power_cuts_and_sleep(cast: Cast) -> None:
    """An unsafe clock, a suspend and a restart do not matter to a kept key."""
    bundle, _, _ = kept(cast)
    cast.machine.suspend_resume()
    unseal(cast, bundle, cast.folder / "slept")
    cast.machine.power_cut()
    cast.boot()
    unseal(cast, bundle, cast.folder / "cut")
    cast.machine.shutdown_restart()
    cast.boot()
    unseal(cast, bundle, cast.folder / "restarted")


STATES = {
    "0": bootlog.BootState(firmware="lab firmware 1.1"),
    "2": bootlog.BootState(option_rom="a stranger's adapter"),
    "4": bootlog.BootState(loader="evil loader"),
    "7": bootlog.BootState(secure_boot=False),
}


@pytest.mark.parametrize("pcr", STATES)
def test_another_boot_state_is_refused_by_register(cast: Cast, pcr: str) -> None:
    """In another state the register that differs is named; back in the right one it opens."""
    bundle, _, _ = kept(cast)
    restart(cast, STATES[pcr])
    with refused(cast, "tpm.pcr"):
        unseal(cast, bundle, cast.folder / "out")
    with pytest.raises(Refused, match=f"pcr {pcr} differ"):
        unseal(cast, bundle, cast.folder / "out")
    # With every check of ours left out the TPM says no by itself.
    with pytest.raises(Refused, match="not the one the key is kept for") as caught:
        cast.tpm.unseal_retained(only(cast).key)
    assert "tpm.pcr" == caught.value.check
    restart(cast)
    unseal(cast, bundle, cast.folder / "out")


def only(cast: Cast) -> Kept:
    """Return the one key that is kept."""
    (found,) = cast.place.keys.all()
    return found


def test_a_register_extended_after_boot_shuts_it(cast: Cast) -> None:
    """What is measured later ends the boot state, until the next restart."""
    bundle, _, _ = kept(cast)
    restart(cast)
    cast.machine.transmit(firmware.pcr_extend(PCRS[1], bytes(32)))
    with refused(cast, "tpm.pcr"):
        unseal(cast, bundle, cast.folder / "out")


def withdraw(cast: Cast, bundle: Bundle) -> None:
    """Withdraw the manifest."""
    cast.next_policy(withdrawn=(bundle.statement.digest,))


def revoke(cast: Cast, _: Bundle) -> None:
    """Revoke the publisher's certificate."""
    spki = cast.people["pub"].signer.spki
    cast.crl = cast.make_crl(number=2, revoked=[spki])
    cast.refresh()


def retire(cast: Cast, _: Bundle) -> None:
    """Sign the next epoch of the golden set, and say that the old one is no longer good."""
    old = cast.documents.golden_sets[0].predicate
    pcrs = tuple(msgspec.structs.replace(pcr, value="ab" * 32) for pcr in old.pcrs)
    new = msgspec.structs.replace(old, epoch=2, oldest=2, pcrs=pcrs)
    found = sort_documents([("golden.dsse", cast.sign(new, "enr1", "enr2"))]).golden_sets
    goldens = (*cast.documents.golden_sets, *found)
    cast.documents = replace(cast.documents, golden_sets=goldens)


def forbid(cast: Cast, _: Bundle) -> None:
    """Let no host keep keys any more."""
    cast.next_policy(modes=("once",))


def unclass(cast: Cast, _: Bundle) -> None:
    """Take no TPM of the host's class any more."""
    cast.next_policy(
        host=msgspec.structs.replace(cast.make_policy().host, trust_classes=("hardware",))
    )


TAKEN_BACK: dict[str, tuple[Callable[[Cast, Bundle], object], str]] = {
    "withdrawn": (withdraw, "manifest.withdrawn"),
    "the publisher revoked": (revoke, "certificate.revoked"),
    "the boot state retired": (retire, "golden.epoch"),
    "keeping forbidden": (forbid, "retained.mode"),
    "the trust class refused": (unclass, "retained.trust-class"),
}


@pytest.mark.parametrize("what", TAKEN_BACK)
def test_what_was_granted_is_taken_back(cast: Cast, what: str) -> None:
    """What the newest policy, a list or a golden set ends is not unsealed at the next restart."""
    bundle, _, _ = kept(cast)
    act, check = TAKEN_BACK[what]
    restart(cast)
    unseal(cast, bundle, cast.folder / "before")
    act(cast, bundle)
    with pytest.raises(Refused) as caught:
        unseal(cast, bundle, cast.folder / "after")
    assert check == caught.value.check
    assert not (cast.folder / "after").exists()


def test_it_ends_with_the_manifest(cast: Cast) -> None:
    """After notAfter nothing is unsealed, nor by a list that is too old."""
    bundle, _, _ = kept(cast)
    late = bundle.core.not_after
    with pytest.raises(Refused) as caught:
        unseal(cast, bundle, cast.folder / "late", now=late)
    assert caught.value.check in {"manifest.expired", "crl.fresh"}
    with pytest.raises(Refused) as caught:
        unseal(cast, bundle, cast.folder / "stale", now=NOW + timedelta(days=12))
    assert "crl.fresh" == caught.value.check


def test_a_receipt_says_that_the_key_is_kept(cast: Cast) -> None:
    """The auditor reads retained, whatever was burned, and sound."""
    bundle, request, answers = kept(cast)
    place = cast.place
    files = [
        ("receipt.dsse", place.receipt_path(request.digest).read_bytes()),
        ("burn.dsse", place.burn_path(request.digest).read_bytes()),
    ]
    report = audit(cast, case_of(cast, bundle, request, answers, None, *files))
    assert set() == failed(report)
    assert "retained" == report.releases[0].outcome
    assert report.releases[0].burn is not None


@pytest.mark.parametrize(("mode", "said"), [("sealed", "opened"), ("once", "retained")])
def test_a_receipt_is_held_against_the_terms(cast: Cast, mode: str, said: str) -> None:
    """Whoever may keep a key is never called burned; whoever may not and did is not sound."""
    bundle = cast.seal()
    request = cast.request(bundle, mode=mode)  # type: ignore[arg-type]
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    situation = cast.situation("host", *answers)
    entry = cast.place.ledger.find(request.digest)
    with unlocked(bundle, request, entry, situation=situation, tpm=cast.tpm) as key:
        receipt = opened_receipt(key, cast.tpm, situation, outcome=said)  # type: ignore[arg-type]
    cast.place.receipt_path(request.digest).write_bytes(receipt)
    burnt = burn(entry, cast.tpm, cast.place, now=NOW)
    files = [("receipt.dsse", receipt), ("burn.dsse", burnt.data)]
    case = case_of(cast, bundle, request, answers, None, *files)
    report = audit(cast, case)
    expected = {"once": {"receipt.mode"}, "sealed": set()}
    assert ("retained", expected[mode]) == (report.releases[0].outcome, failed(report))
    assert report.sound is (mode == "sealed")
    # One file has it too, and a receipt that says otherwise takes nothing back.
    sent = judged(collect(case, pin=cast.pin).data, cast.pin)
    assert ("retained", expected[mode]) == (sent.releases[0].outcome, failed(sent))
    denied = attested_receipt(
        entry,
        outcome="failed",
        reason="",
        approvals=(),
        bad_shares=(),
        tpm=cast.tpm,
        now=NOW,
    )
    report = audit(cast, merge(case, sort_documents([("denied.dsse", denied)])))
    assert ("retained", expected[mode]) == (report.releases[0].outcome, failed(report))


def test_a_policy_that_forbids_it_gets_no_request(cast: Cast) -> None:
    """Without leave in the policy the host does not even ask."""
    cast.next_policy(modes=("once",))
    bundle = cast.seal()
    with refused(cast, "request.mode"):
        cast.request(bundle, mode="sealed")


def test_one_opening_keeps_nothing(cast: Cast) -> None:
    """Terms of one opening leave no key, in no folder and no counter."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / "out")
    assert () == cast.place.keys.all()
    with incomplete(cast, bundle.statement.digest):
        unseal(cast, bundle, cast.folder / "again")


def test_forgetting_leaves_no_plaintext_of_an_unsealing_that_stopped(cast: Cast) -> None:
    """It lies in one private place, of the last target alone, and goes with the key."""
    bundle, _, _ = kept(cast)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("first", "second"):
        with pytest.raises(KeyboardInterrupt):
            unseal_release(
                bundle,
                cast.folder / name,
                situation=cast.situation("host"),
                tpm=cast.tpm,
                place=cast.place,
                progress=stop,
            )
        (left,) = cast.folder.glob(".*.unfinished")
        assert left.name.startswith(f".{name}.")
        assert any(path.is_file() for path in (left / "output").rglob("*"))
    forget(only(cast), cast.tpm, cast.place.keys)
    assert [] == list(cast.folder.glob(".*.unfinished"))


def test_a_host_shows_that_it_forgot(cast: Cast) -> None:
    """Its TPM certifies the counter of the kept key; the audit says so, and it lingers no more."""
    bundle, request, answers = kept(cast)
    keys, one = cast.place.keys, only(cast)
    said: list[bytes] = []
    forget(
        one, cast.tpm, keys, tell=lambda: said.append(forgotten_statement(one, cast.tpm, now=NOW))
    )
    place = cast.place
    files = [
        ("receipt.dsse", place.receipt_path(request.digest).read_bytes()),
        ("burn.dsse", place.burn_path(request.digest).read_bytes()),
    ]
    for more, missing in (((), ["missing.forgotten"]), ([("forgotten.dsse", said[0])], [])):
        case = case_of(cast, bundle, request, answers, None, *files, *more)
        report = audit(cast, case)
        assert set() == failed(report)
        gaps = [gap.missing for gap in gaps_of(report.releases[0])]
        assert [*missing, "missing.time"] == gaps
        path = cast.folder / f"{len(more)}.case"
        path.write_bytes(collect(case, pin=cast.pin).data)
        archive = read_archive([path], shelves=[], pin=cast.pin)
        late = overdue(archive, pin=cast.pin, now=NOW + timedelta(days=31))
        assert bool(missing) == ("overdue.kept-key" in {each.kind for each in late})


def test_a_forgotten_key_is_dead_wherever_it_was_copied(cast: Cast) -> None:
    """After forget the object opens nothing, though its files were saved before."""
    bundle, request, _ = kept(cast)
    keys, one = cast.place.keys, only(cast)
    asked = keys.request(one)
    forget(one, cast.tpm, keys)
    with incomplete(cast, bundle.statement.digest):
        unseal(cast, bundle, cast.folder / "out")
    keys.keep(one, asked)
    restart(cast)
    with pytest.raises(Refused, match="forgotten") as caught:
        unseal(cast, bundle, cast.folder / "out")
    assert "tpm.counter" == caught.value.check
    assert request.digest == one.request


def test_a_cleared_tpm_keeps_nothing(cast: Cast) -> None:
    """TPM2_Clear ends every kept key."""
    kept(cast)
    with cast.tpm_link("clear it") as link:
        from tpm2_pytss.constants import ESYS_TR

        link.esys.clear(ESYS_TR.LOCKOUT)
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(only(cast).key)
    assert "tpm.retained" == caught.value.check
    one = only(cast)
    assert one.key.counter < forget(one, cast.tpm, cast.place.keys)
    assert () == cast.place.keys.all()


def test_another_machine_unseals_nothing(cast: Cast) -> None:
    """In the same boot state, with all files copied, another TPM is refused, by rule and by key."""
    bundle, _, _ = kept(cast)
    with fresh(cast.machine.vendor) as other:
        bootlog.extend(other, cast.event_log)
        cast.tpm = open_host(TpmUri(tcti=other.tcti))
        with refused(cast, "tpm.ek"):
            unseal(cast, bundle, cast.folder / "out")
        index = only(cast).key.counter_index
        with pytest.raises(Refused) as caught:
            cast.tpm.unseal_retained(only(cast).key)
        assert "tpm.retained" == caught.value.check
        cast.tpm.retain(b"x", pcrs=PCRS, pcr_digest=bytes(32), index=index)
        with pytest.raises(Refused):
            cast.tpm.unseal_retained(only(cast).key)


def test_keeping_again_ends_what_was_kept_before(cast: Cast) -> None:
    """A second release of one bundle keeps one key: the first is dead."""
    bundle, _, _ = kept(cast)
    first = only(cast)
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / "second")
    assert first.key.counter_index == only(cast).key.counter_index
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(first.key)
    assert "tpm.counter" == caught.value.check
    restart(cast)
    unseal(cast, bundle, cast.folder / "out")


def test_an_opening_that_died_with_its_key_kept_is_not_unsealed(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of which no receipt tells is refused, and giving the request up destroys it."""
    bundle = cast.seal()
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.open.opened_receipt", _die)
        patch.setattr("custody.ops.open._take_back", _die)
        with pytest.raises(KeyboardInterrupt):
            cast.open(bundle, request, answers, cast.folder / "out")
    one = only(cast)
    with pytest.raises(Refused) as caught:
        unseal(cast, bundle, cast.folder / "again")
    assert "retained.receipt" == caught.value.check
    give_up(cast.place.ledger.find(request.digest), cast.tpm, cast.place, now=NOW)
    assert () == cast.place.keys.all()
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(one.key)
    assert "tpm.counter" == caught.value.check


def _die(*_: object, **__: object) -> bytes:
    raise KeyboardInterrupt


def test_a_tpm_keeps_as_many_keys_as_it_has_counters(cast: Cast) -> None:
    """When the counters are used up, what is kept is named, and forgetting one makes room."""
    bundle, request, _ = kept(cast)
    keys, one = cast.place.keys, only(cast)
    for number, index in enumerate(RETAINED_INDEXES):
        key = msgspec.structs.replace(one.key, counter_index=index)
        other = f"{number:064x}"
        keys.keep(msgspec.structs.replace(one, manifest=other, key=key), keys.request(one))
    with pytest.raises(Incomplete, match="no room"):
        keys.free_index("ff" * 32, one.ak_name)
    assert bundle.statement.digest in {found.manifest for found in keys.all()}
    assert request.digest == one.request


def test_the_owners_password_is_used(cast: Cast) -> None:
    """Where the owner hierarchy has an authorisation value, keeping and unsealing need it."""
    bundle, _, _ = kept(cast)
    with cast.tpm_link("set a password") as link:
        from tpm2_pytss.constants import ESYS_TR

        link.esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with pytest.raises(Refused):
        unseal(cast, bundle, cast.folder / "out")
    source = cast.folder / "owner"
    source.write_bytes(b"owner\n")
    source.chmod(0o600)
    cast.tpm = open_host(TpmUri(tcti=cast.machine.tcti, pin_source=str(source)))
    unseal(cast, bundle, cast.folder / "out")
