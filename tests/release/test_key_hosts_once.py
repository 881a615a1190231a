"""Opening by a key in an HSM, once: when it ends, two runs at a time, and power that fails."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest

from custody.cli._keystatus import KeyRequestView, key_view
from custody.errors import Refused
from custody.formats.approval import Approval
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyRequest
from custody.ops import landing
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.keyhost import KeyHost, OpenedByKey, give_up_by_key, open_by_key, read_by_key
from custody.ops.keyplace import standings_by_key
from custody.ops.landing import unfinished_output
from custody.ops.linux import rename_new
from custody.ops.payload_open import open_into
from tests.release.cast import NOW, Cast
from tests.release.conftest import ready, running
from tests.release.expect import QUORUM
from tests.release.keyhosts import (
    HOST,
    add_host,
    approve,
    ask,
    both_rounds,
    case_of,
    consent,
    key_host,
    key_place,
    open_it,
)
from tests.release.test_kills import plaintext_outside, secret_files
from tests.release.test_release import same_tree

HOUR = timedelta(hours=1)
RUNS = 5
_FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def hosted(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cast]:
    """A cast with a host without a TPM besides, and a policy that takes it; one for all."""
    with running(manufactured) as machine:
        cast = ready(tmp_path_factory.mktemp("once"), machine)
        add_host(cast)
        yield cast


@pytest.fixture(scope="module")
def bundle(hosted: Cast) -> Bundle:
    """The bundle that everybody here asks for."""
    return hosted.seal()


def answered(cast: Cast, bundle: Bundle) -> tuple[Statement[KeyRequest], list[bytes]]:
    """Ask, and have a quorum answer in both rounds."""
    request = ask(cast, bundle)
    return request, both_rounds(cast, bundle, request)


def host_until(cast: Cast, *moments: datetime) -> KeyHost:
    """Return the host with a clock that says these one after the other."""
    return replace(key_host(cast), clock=iter(moments).__next__)


# ── when it ended ──────────────────────────────────────────────────────────────────────────────


def test_a_receipt_says_when_the_opening_ended(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """`finishedAt` is when the model was whole, and not when the run began hours before."""
    request, answers = answered(hosted, bundle)
    opened = open_by_key(
        bundle,
        request,
        tmp_path / "out",
        situation=hosted.situation(HOST, *answers),
        host=host_until(hosted, NOW, NOW + 3 * HOUR),
    )
    assert NOW + 3 * HOUR == opened.receipt.predicate.finished_at
    case = case_of(hosted, bundle, request, [*answers, opened.receipt_data])
    (release,) = audit_case(case, pin=hosted.pin).releases
    assert (True, NOW + 3 * HOUR) == (release.sound, release.at)


def test_a_clock_set_back_dates_no_receipt_before_its_beginning(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """What the rules were asked at is the least that a receipt says."""
    request, answers = answered(hosted, bundle)
    opened = open_by_key(
        bundle,
        request,
        tmp_path / "out",
        situation=hosted.situation(HOST, *answers, now=NOW + HOUR),
        host=host_until(hosted, NOW + HOUR, NOW - HOUR),
    )
    assert NOW + HOUR == opened.receipt.predicate.finished_at


@pytest.mark.parametrize("asked_of_the_hsm", [False, True])
def test_what_is_whole_after_the_deadline_is_not_kept(
    hosted: Cast, bundle: Bundle, tmp_path: Path, *, asked_of_the_hsm: bool
) -> None:
    """A PIN waited for, or a slow disk: too late, there is neither model nor receipt nor rest."""
    request, answers = answered(hosted, bundle)
    late = request.predicate.terms.deadline
    host = host_until(hosted, *([late - HOUR] if asked_of_the_hsm else []), late)
    if not asked_of_the_hsm:
        # A key that opens none of the shares: asked, it would be them that are found wanting.
        host = replace(host, opener=hosted.people["sec1"].opener)
    with pytest.raises(Refused) as caught:
        open_by_key(
            bundle,
            request,
            tmp_path / "out",
            situation=hosted.situation(HOST, *answers, now=late - HOUR),
            host=host,
        )
    assert "keyrequest.deadline" == caught.value.check
    assert [] == list(tmp_path.iterdir())
    assert key_place(hosted).receipt(request.digest) is None


def test_what_is_whole_after_an_approval_ended_is_not_kept(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """Honest hosts write no receipt that every auditor holds against them; a new approval helps."""
    request, answers = answered(hosted, bundle)
    who, until = QUORUM[0], NOW + HOUR
    said = decode_statement(Approval, answers[len(QUORUM)]).predicate
    shorter = msgspec.structs.replace(said, expires_at=until)
    good = answers[len(QUORUM)]
    answers[len(QUORUM)] = hosted.people[who].signer.statement(shorter)
    with pytest.raises(Refused, match=f"{who}'s approval ended") as caught:
        open_by_key(
            bundle,
            request,
            tmp_path / "out",
            situation=hosted.situation(HOST, *answers),
            host=host_until(hosted, NOW, until),
        )
    assert "receipt.time" == caught.value.check
    assert [] == list(tmp_path.iterdir())
    open_it(hosted, bundle, request, [*answers, good], tmp_path / "out", now=until)


# ── two at a time ──────────────────────────────────────────────────────────────────────────────


def in_a_process(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    """Begin ``work`` in a process of its own."""
    with warnings.catch_warnings():
        # The child only ever runs `work`; nothing here holds a lock while it forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = _FORK.Process(target=work)
        child.start()
    return child


def test_two_runs_at_a_time_open_once(
    hosted: Cast, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process opens, another is told so, wherever it would open to, read or give up."""
    request, answers = answered(hosted, bundle)
    ours, theirs = _FORK.Pipe()
    real = open_into

    def slowly(*args: object, **kwargs: object) -> None:
        theirs.send("begun")
        theirs.recv()
        real(*args, **kwargs)  # type: ignore[arg-type]

    def first() -> None:
        open_it(hosted, bundle, request, answers, tmp_path / "first")

    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.keyhost.open_into", slowly)
        child = in_a_process(first)
    assert ours.poll(30)
    situation, host = hosted.situation(HOST, *answers), key_host(hosted)

    def read() -> None:
        with read_by_key(bundle, request, situation=situation, host=host):
            pass

    for act in (
        lambda: open_it(hosted, bundle, request, answers, tmp_path / "second"),
        lambda: open_it(hosted, bundle, request, answers, tmp_path / "first"),
        lambda: give_up_by_key(request, situation=situation, host=host, reason=""),
        read,
    ):
        with pytest.raises(Refused, match="another process") as caught:
            act()
        assert "host.busy" == caught.value.check
    # Another request of the same host is nobody's business but its own.
    other, others = answered(hosted, bundle)
    open_it(hosted, bundle, other, others, tmp_path / "other")
    ours.send("go on")
    child.join(30)
    assert 0 == child.exitcode
    assert same_tree(hosted.folder / "model", tmp_path / "first")
    assert ["first", "other"] == sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Refused) as caught:
        open_it(hosted, bundle, request, answers, tmp_path / "second")
    assert "host.ended" == caught.value.check


def test_of_many_runs_that_race_one_opens(hosted: Cast, bundle: Bundle, tmp_path: Path) -> None:
    """Begun together by as many processes, one model appears and the others are refused."""
    request, answers = answered(hosted, bundle)
    pipes = [_FORK.Pipe() for _ in range(RUNS)]

    def run(number: int, theirs: Connection) -> None:
        theirs.recv()
        try:
            open_it(hosted, bundle, request, answers, tmp_path / f"out-{number}")
        except Refused as error:
            theirs.send(error.check)
        else:
            theirs.send("opened")

    children = [
        in_a_process(partial(run, number, theirs)) for number, (_, theirs) in enumerate(pipes)
    ]
    for ours, _ in pipes:
        ours.send("go")
    said = sorted(ours.recv() for ours, _ in pipes)
    for child in children:
        child.join(30)
    assert 1 == said.count("opened")
    assert {"opened", "host.busy", "host.ended"} >= set(said)
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_killed_run_holds_no_lock(
    hosted: Cast, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process held that died is free at once."""
    request, answers = answered(hosted, bundle)
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.keyhost.open_into", _die)
        child = in_a_process(lambda: open_it(hosted, bundle, request, answers, tmp_path / "out"))
        child.join(30)
    assert -signal.SIGKILL == child.exitcode
    open_it(hosted, bundle, request, answers, tmp_path / "out")


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ── power that fails ───────────────────────────────────────────────────────────────────────────

#: Of all calls that touch the disk, the last are where receipt and model land: each of them.
LAST, SPREAD = 40, 10


def _die_at(count: int) -> Callable[[], Iterator[int]]:
    """Kill the process at the ``count``-th call that touches the disk; count them all."""
    numbers = itertools.count(1)

    def tick() -> None:
        if next(numbers) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(module: object, name: str) -> None:
        call = getattr(module, name)

        def ticking(*args: object) -> object:
            tick()
            result = call(*args)
            tick()
            return result

        setattr(module, name, ticking)

    def prepare() -> Iterator[int]:
        around(os, "pwrite")
        around(os, "fsync")
        around(landing, "rename_new")
        touching = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "fcntl.flock")
        sys.addaudithook(lambda event, _: tick() if event in touching else None)
        return numbers

    return prepare


class Powers:
    """One request after the other for one bundle, opened by a process that dies."""

    def __init__(self, cast: Cast, bundle: Bundle) -> None:
        self.cast, self.bundle = cast, bundle
        self.model = cast.folder / "model"
        self.folder = cast.folder / "powers"
        self.folder.mkdir()
        self.first, self.other = self.folder / "first", self.folder / "other"
        self.request, self.answers = answered(cast, bundle)

    def open(self, target: Path) -> OpenedByKey:
        return open_it(self.cast, self.bundle, self.request, self.answers, target)

    def die(self, count: int) -> int:
        """Open in a process that dies at a call; return how many it made if it did not."""
        ours, theirs = _FORK.Pipe(duplex=False)

        def work() -> None:
            numbers = _die_at(count)()
            self.open(self.first)
            theirs.send(next(numbers))

        child = in_a_process(work)
        child.join(60)
        assert child.exitcode in {0, -signal.SIGKILL}
        return ours.recv() if child.exitcode == 0 else 0

    def ended(self, target: Path) -> None:
        with pytest.raises(Refused) as caught:
            self.open(target)
        assert "host.ended" == caught.value.check

    def check(self, *, elsewhere: bool) -> None:
        """See what is left, and that one model comes of it, at one place."""
        receipt = key_place(self.cast).receipt(self.request.digest)
        landed, self.receipt = self.first.exists(), receipt
        if landed:
            assert same_tree(self.model, self.first)
            assert receipt is not None
        allowed = [self.model, self.first]
        assert [] == plaintext_outside(self.cast.folder, allowed, secret_files(self.model))
        if elsewhere and receipt is None:
            self.open(self.other)
            # What lay half opened at the first place went, and is not gone on with.
            assert unfinished_output(self.first, self.request.digest[:16]) is None
            self.ended(self.first)
        else:
            if elsewhere:
                self.ended(self.other)
            if landed:
                self.ended(self.first)
            else:
                self.open(self.first)
            self.ended(self.other)
        if self.receipt is not None:
            # What somebody may have been shown is not said anew.
            assert self.receipt == key_place(self.cast).receipt(self.request.digest)
        (made,) = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        assert same_tree(self.model, made)
        assert [] == list(self.folder.glob(".*/output"))
        for path in self.folder.iterdir():
            shutil.rmtree(path)
        self.request, self.answers = answered(self.cast, self.bundle)


def test_killed_at_any_call_one_model_appears_once(hosted: Cast, bundle: Bundle) -> None:
    """Killed between any two writes: no half model, no model without receipt, none twice."""
    powers = Powers(hosted, bundle)
    calls = powers.die(0)
    powers.check(elsewhere=False)
    kills = [*range(1, calls - LAST, max(1, calls // SPREAD)), *range(calls - LAST, calls)]
    killed = 0
    for count in kills:
        killed += powers.die(count) == 0
        powers.check(elsewhere=count % 2 == 0)
    assert killed > len(kills) * 3 // 4


def test_an_output_made_by_somebody_else_meanwhile_costs_no_approval(
    hosted: Cast, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model cannot appear, its receipt is taken back, though something has its name."""
    request, answers = answered(hosted, bundle)
    out, real = tmp_path / "out", rename_new

    def rename(source: Path, target: Path) -> None:
        if target == out:
            out.mkdir()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.landing.rename_new", rename)
        with pytest.raises(Refused) as caught:
            open_it(hosted, bundle, request, answers, out)
    assert "target.exists" == caught.value.check
    assert key_place(hosted).receipt(request.digest) is None
    open_it(hosted, bundle, request, answers, tmp_path / "free")


def test_a_model_moved_away_is_not_opened_again(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """Neither where it was, nor by a directory that looks as if a run had stopped there."""
    request, answers = answered(hosted, bundle)
    out = tmp_path / "out"
    open_it(hosted, bundle, request, answers, out)
    out.rename(tmp_path / "moved")
    fake = landing.unfinished_path(out, request.digest[:16])
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            open_it(hosted, bundle, request, answers, out)
        assert "host.ended" == caught.value.check
        (fake / "output").mkdir(mode=0o700, parents=True, exist_ok=True)


def test_giving_up_removes_what_was_opened_half_way(
    hosted: Cast, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plaintext of a run that stopped goes with its request, and when another place is chosen."""
    request, answers = answered(hosted, bundle)
    situation, host = hosted.situation(HOST, *answers), key_host(hosted)
    real = open_into

    def stop(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    places = [tmp_path / name for name in ("first", "second")]
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.keyhost.open_into", stop)
        for place in places:
            with pytest.raises(KeyboardInterrupt):
                open_it(hosted, bundle, request, answers, place)
            assert place == key_place(hosted).unfinished(request.digest)
    first, second = (landing.unfinished_path(place, request.digest[:16]) for place in places)
    assert (False, True) == (first.exists(), second.exists())
    give_up_by_key(request, situation=situation, host=host, reason="not wanted")
    assert [] == list(tmp_path.iterdir())


def test_a_standing_tells_what_a_stopped_run_left(
    hosted: Cast, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was to appear, that it can be opened, and after the deadline that it was not."""
    request, answers = answered(hosted, bundle)
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.keyhost.open_into", _stop)
        with pytest.raises(KeyboardInterrupt):
            open_it(hosted, bundle, request, answers, tmp_path / "out")

    def standing(now: datetime) -> KeyRequestView:
        situation = hosted.situation(HOST, *answers, now=now)
        found = standings_by_key(key_place(hosted), situation)
        (one,) = [each for each in found if each.request.digest == request.digest]
        return key_view(one, now)

    view = standing(NOW)
    assert ("open", True, "") == (view.state, view.ready, view.refused)
    assert str(tmp_path / "out") == view.unfinished
    view = standing(request.predicate.terms.deadline)
    assert ("past-deadline", False) == (view.state, view.ready)
    assert "its deadline is past" in view.refused
    open_it(hosted, bundle, request, answers, tmp_path / "out")
    view = standing(NOW)
    assert ("opened", NOW, "", False) == (view.state, view.ended_at, view.unfinished, view.judged)


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# ── read in memory ─────────────────────────────────────────────────────────────────────────────


def test_reading_in_memory_is_the_one_opening(hosted: Cast, bundle: Bundle, tmp_path: Path) -> None:
    """It writes nothing but its receipt, spends the request, and explains itself to an auditor."""
    request, answers = answered(hosted, bundle)
    situation, host = hosted.situation(HOST, *answers), key_host(hosted)
    name, wanted = "model.safetensors", (hosted.folder / "model" / "model.safetensors").read_bytes()
    with read_by_key(bundle, request, situation=situation, host=host, files=[name]) as read:
        found = bytearray(read.reader.file(name).size_bytes)
        read.reader.read_into(name, 0, memoryview(found))
        assert wanted == bytes(found)
        # Others are told that it has ended, and not that it goes on.
        with pytest.raises(Refused) as caught:
            open_it(hosted, bundle, request, answers, tmp_path / "out")
        assert "host.ended" == caught.value.check
    assert "read in memory" == read.opened.receipt.predicate.reason
    case = case_of(hosted, bundle, request, [*answers, read.opened.receipt_data])
    (release,) = audit_case(case, pin=hosted.pin).releases
    assert (True, "opened-burn-not-provable") == (release.sound, release.outcome)
    assert [] == list(tmp_path.iterdir())
    with (
        pytest.raises(Refused, match="would open it once more"),
        read_by_key(bundle, request, situation=situation, host=host),
    ):
        pass


def test_a_model_that_was_opened_is_not_read_from_its_bundle(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """That would be a second opening of one request, and the words say what to read instead."""
    request, answers = answered(hosted, bundle)
    open_it(hosted, bundle, request, answers, tmp_path / "out")
    situation, host = hosted.situation(HOST, *answers), key_host(hosted)
    with (
        pytest.raises(Refused, match="read the model that was opened then") as caught,
        read_by_key(bundle, request, situation=situation, host=host),
    ):
        pass
    assert "host.ended" == caught.value.check


def test_a_name_that_is_not_in_the_bundle_spends_nothing(
    hosted: Cast, bundle: Bundle, tmp_path: Path
) -> None:
    """Nor do answers that are too few: the request opens afterwards."""
    request = ask(hosted, bundle)
    consents = [consent(hosted, bundle, request, name) for name in QUORUM]
    answers = [*consents, *(approve(hosted, bundle, request, who, consents) for who in QUORUM)]
    situation, host = hosted.situation(HOST, *answers), key_host(hosted)
    with (
        pytest.raises(Refused) as caught,
        read_by_key(bundle, request, situation=situation, host=host, files=["no such"]),
    ):
        pass
    assert "file.name" == caught.value.check
    assert key_place(hosted).receipt(request.digest) is None
    open_it(hosted, bundle, request, answers, tmp_path / "out")
