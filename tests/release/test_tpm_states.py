"""What happens to a request when its TPM does not stay as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from custody.errors import Incomplete, Refused, Unavailable
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.keys.tpm import open_host
from custody.keys.tpm_session import Connection, Tpm
from custody.keys.uri import TpmUri
from custody.lab import bootlog, firmware
from custody.lab.swtpm import Swtpm
from custody.ops.bundle import Bundle
from custody.ops.receipts import give_up
from tests.release.cast import NOW, PCRS, Cast
from tests.release.expect import QUORUM, incomplete, listing, refused

POWER: dict[str, Callable[[Swtpm], None]] = {
    "rebooted": Swtpm.reboot,
    "power cut": Swtpm.power_cut,
    "suspended": Swtpm.suspend_resume,
    "shut down and restarted": Swtpm.shutdown_restart,
}


def granted(cast: Cast) -> tuple[Bundle, Statement[Request], list[bytes]]:
    """Seal, ask and approve."""
    bundle = cast.seal()
    request = cast.request(bundle)
    return bundle, request, [cast.approve(bundle, request, who) for who in QUORUM]


@pytest.mark.parametrize("what", POWER)
def test_a_request_dies_with_its_boot(cast: Cast, tmp_path: Path, what: str) -> None:
    """After a reset, restart or suspend H opens nothing, even in the same boot state."""
    bundle, request, answers = granted(cast)
    POWER[what](cast.machine)
    if what != "suspended":
        cast.boot()
    with refused(cast, "tpm.rebooted"):
        cast.open(bundle, request, answers, tmp_path / "out")


@pytest.mark.parametrize("what", ["rebooted", "suspended", "shut down and restarted"])
def test_a_new_request_is_needed_after_a_boot(cast: Cast, tmp_path: Path, what: str) -> None:
    """A reboot costs the approvals: the old ones count for no new request, new ones do."""
    bundle, _, answers = granted(cast)
    POWER[what](cast.machine)
    if what != "suspended":
        cast.boot()
    again = cast.request(bundle)
    with pytest.raises(Incomplete):
        cast.open(bundle, again, answers, tmp_path / "out")
    fresh = [cast.approve(bundle, again, who) for who in QUORUM]
    cast.open(bundle, again, fresh, tmp_path / "out")


def test_a_clock_that_ran_back_is_refused(cast: Cast) -> None:
    """After a power cut the TPM calls its clock unsafe, and no request is good until it is safe."""
    bundle = cast.seal()
    cast.machine.power_cut()
    cast.boot()
    with refused(cast, "attestation.V25"):
        cast.request(bundle)


def test_an_absent_tpm_opens_nothing(cast: Cast, tmp_path: Path) -> None:
    """Without its TPM a host says so, with nothing left behind, and can open when it is back."""
    bundle, request, answers = granted(cast)
    before = listing(cast.folder)
    cast.tpm = open_host(TpmUri(tcti=f"swtpm:path={tmp_path}/none.sock"))
    for attempt in (
        lambda: cast.open(bundle, request, answers, tmp_path / "out"),
        lambda: cast.request(bundle),
    ):
        with pytest.raises(Unavailable):
            attempt()
    assert before == listing(cast.folder)
    cast.tpm = open_host(TpmUri(tcti=cast.machine.tcti))
    cast.open(bundle, request, answers, tmp_path / "out")


@pytest.mark.parametrize("pcr", PCRS)
def test_a_changed_register_is_refused(cast: Cast, tmp_path: Path, pcr: int) -> None:
    """A register extended after the request shuts H, and gets no new request."""
    bundle, request, answers = granted(cast)
    cast.machine.transmit(firmware.pcr_extend(pcr, bytes(32)))
    with refused(cast, "tpm.pcr"):
        cast.open(bundle, request, answers, tmp_path / "out")
    with refused(cast, "host.golden"):
        cast.request(bundle)


def test_a_register_outside_the_policy_may_change(cast: Cast, tmp_path: Path) -> None:
    """What the policy does not ask for stops nothing."""
    bundle, request, answers = granted(cast)
    cast.machine.transmit(firmware.pcr_extend(9, bytes(32)))
    cast.open(bundle, request, answers, tmp_path / "out")


def test_an_unapproved_boot_gets_no_request(cast: Cast) -> None:
    """A host that booted another loader gets no request."""
    bundle = cast.seal()
    cast.machine.reboot()
    cast.boot(bootlog.BootState(loader="evil loader"))
    with refused(cast, "host.golden"):
        cast.request(bundle)


def test_a_passed_deadline_is_refused(cast: Cast, tmp_path: Path) -> None:
    """H opens nothing after the deadline in its policy, whatever the host's clock says."""
    bundle, request, answers = granted(cast)
    with cast.tpm_link("move its clock") as link:
        from tpm2_pytss.constants import ESYS_TR

        link.esys.clock_set(request.predicate.terms.deadline_ms, ESYS_TR.OWNER)
    with refused(cast, "tpm.deadline"):
        cast.open(bundle, request, answers, tmp_path / "out")


def test_no_free_counter_names_the_open_requests(cast: Cast) -> None:
    """A fifth request is incomplete: it names the four that are open, and giving up one helps."""
    bundle = cast.seal()
    requests = [cast.request(bundle) for _ in range(4)]
    with incomplete(cast, *(request.digest for request in requests)):
        cast.request(bundle)
    place = cast.place
    give_up(place.ledger.find(requests[1].digest), cast.tpm, place, now=NOW)
    again = cast.request(bundle)
    used = {entry.counter_index for entry in place.ledger.all()}
    assert 4 == len(used)
    assert again.predicate.terms.counter > requests[1].predicate.terms.counter


def test_a_given_up_request_opens_nothing(cast: Cast, tmp_path: Path) -> None:
    """A cancelled request is burnt in the TPM, not only forgotten."""
    bundle, request, answers = granted(cast)
    entry = cast.place.ledger.find(request.digest)
    give_up(entry, cast.tpm, cast.place, now=NOW)
    with refused(cast, "host.ended"):
        cast.open(bundle, request, answers, tmp_path / "out")
    cast.place.ledger.keep(entry)
    with refused(cast, "tpm.counter"):
        cast.open(bundle, request, answers, tmp_path / "out")


def test_two_requests_at_once_get_two_counters(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests made at the same time never share a counter: one would kill the other's key."""
    turn, opened = threading.RLock(), Tpm._opened

    @contextmanager
    def in_turn(self: Tpm, doing: str) -> Iterator[Connection]:
        # As a resource manager keeps them apart: nothing stands before a software TPM.
        with turn, opened(self, doing) as link:
            yield link

    monkeypatch.setattr(Tpm, "_opened", in_turn)
    bundle = cast.seal()
    cast.situation("host")
    made: list[Statement[Request]] = []
    threads = [threading.Thread(target=lambda: made.append(cast.request(bundle))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {request.predicate.terms.nv_name for request in made}
    assert 3 == len(names)
    for number, request in enumerate(made):
        answers = [cast.approve(bundle, request, who) for who in QUORUM]
        cast.open(bundle, request, answers, tmp_path / f"out-{number}")


def test_an_approval_opens_on_no_second_host(cast: Cast, tmp_path: Path) -> None:
    """Another machine in the same boot state cannot load H, whatever files it copies."""
    from custody.keys.tpm import open_host as opened
    from tests.release.conftest import fresh

    bundle, request, answers = granted(cast)
    with fresh(cast.machine.vendor) as other:
        bootlog.extend(other, bootlog.record(bootlog.BootState()))
        cast.tpm = opened(TpmUri(tcti=other.tcti))
        # Whatever the other one's boot counts are: it cannot even load H.
        with refused(cast, "tpm.rebooted"):
            cast.tpm.certify_creation(cast.place.ledger.find(request.digest).host_key, b"")
        other.reboot()
        bootlog.extend(other, bootlog.record(bootlog.BootState()))
        with refused(cast, "tpm.rebooted"):
            cast.open(bundle, request, answers, tmp_path / "out")
        with refused(cast, "host.enrolled"):
            cast.request(bundle)


@pytest.mark.parametrize("field", ["counter_index", "host_key"])
def test_an_edited_ledger_opens_nothing(cast: Cast, tmp_path: Path, field: str) -> None:
    """A host's own file of open requests is not believed: the TPM compares what it says."""
    bundle, request, answers = granted(cast)
    other = cast.request(bundle)
    ledger = cast.place.ledger
    true = ledger.find(request.digest)
    wrong = getattr(ledger.find(other.digest), field)
    ledger.keep(msgspec.structs.replace(true, **{field: wrong}))
    with pytest.raises(Refused) as caught:
        cast.open(bundle, request, answers, tmp_path / "out")
    # Two counters may stand at one value; their Names differ all the same.
    assert caught.value.check in {"tpm.policy", "tpm.counter"}
    assert not (tmp_path / "out").exists()
    ledger.keep(msgspec.structs.replace(true, deadline_ms=2**62, counter=0, reset_count=0))
    cast.open(bundle, request, answers, tmp_path / "out")
