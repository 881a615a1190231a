"""Sealing and opening, killed at random moments, in processes of their own; the TPM runs on."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.ops.bundle import Bundle
from custody.ops.open import Opened, interrupted
from custody.ops.receipts import burn
from tests.release.cast import NOW, Cast
from tests.release.conftest import ready, running
from tests.release.expect import QUORUM, audit, case_of

#: Kills of each verb in `make test`, and in `make soak`.
KILLS, MANY = 26, 260
_FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def cast(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cast]:
    """Give one cast for all kills: what a kill leaves behind must not hurt the next one."""
    with running(manufactured) as machine:
        yield ready(tmp_path_factory.mktemp("kills"), machine)


def run_for(seconds: float | None, work: Callable[[], object]) -> bool:
    """Run ``work`` in a process of its own, killed after so long; tell whether it was killed."""
    with warnings.catch_warnings():
        # The child only ever runs `work`; nothing here holds a lock while it forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = _FORK.Process(target=work)
        child.start()
    child.join(seconds)
    child.kill()
    child.join()
    assert child.exitcode in {0, -9}
    return child.exitcode == -9


def duration(work: Callable[[], object]) -> float:
    """Measure a whole run in a process of its own."""
    start = time.monotonic()
    assert not run_for(None, work)
    return time.monotonic() - start


def kill_often(kills: int, longest: float, attempt: Callable[[float], bool]) -> int:
    """Call ``attempt`` with random moments until it was killed so often; return the runs."""
    choice = random.Random(longest > 0)
    killed = 0
    for run in itertools.count(1):
        if attempt(choice.uniform(0, longest)):
            killed += 1
        else:
            # It was measured on a busier machine than this one is now.
            longest *= 0.9
        if killed == kills:
            return run
        assert run < 4 * kills, "too few runs are killed to prove anything"
    raise AssertionError


def secret_files(model: Path) -> list[bytes]:
    """Return what must not be found elsewhere: pieces of the model's files."""
    weights = (model / "model.safetensors").read_bytes()
    vocabulary = (model / "tokenizer" / "vocab.txt").read_bytes()
    return [weights[:48], weights[70_000:70_048], weights[-48:], vocabulary]


def plaintext_outside(folder: Path, allowed: list[Path], pieces: list[bytes]) -> list[Path]:
    """List the files with plaintext that lie neither in ``allowed`` nor in a staging directory."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.endswith((".partial", ".unfinished")) for part in parts)
        if hidden or not path.is_file() or any(path.is_relative_to(a) for a in allowed):
            continue
        data = path.read_bytes()
        if any(piece in data for piece in pieces):
            found.append(path)
    return found


def staging(folder: Path) -> list[Path]:
    """List what killed runs have left of their outputs.

    One killed just after its output landed leaves an empty staging directory, which the next
    landing there sweeps.
    """
    return [*folder.glob(".*.partial/output"), *folder.glob(".*.unfinished/output")]


def same_model(left: Path, right: Path) -> bool:
    """Compare two models byte for byte."""
    files = {p.relative_to(left): p.read_bytes() for p in left.rglob("*") if p.is_file()}
    return files == {p.relative_to(right): p.read_bytes() for p in right.rglob("*") if p.is_file()}


# ── open ─────────────────────────────────────────────────────────────────────────────────────────


class Opening:
    """One request after the other for one bundle, until every kill was made."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.model = cast.folder / "model"
        self.bundle = (
            Bundle.at(cast.folder / "model.bundle") if self.model.exists() else cast.seal()
        )
        self.numbers = itertools.count()
        self.target = cast.folder / "unused"
        self.request, self.answers = self.ask()

    def ask(self) -> tuple[Statement[Request], list[bytes]]:
        """Ask and approve."""
        request = self.cast.request(self.bundle)
        return request, [self.cast.approve(self.bundle, request, who) for who in QUORUM]

    def run(self) -> Opened:
        return self.cast.open(self.bundle, self.request, self.answers, self.target)

    def open_state(self) -> bool:
        """Whether the host still counts the request as open."""
        entries = self.cast.place.ledger.all()
        return self.request.digest in {entry.request for entry in entries}

    def attempt(self, moment: float) -> bool:
        """Open, killed at a moment; check what is left, and finish the opening as a rerun does."""
        self.target = self.cast.folder / f"out-{next(self.numbers)}"
        killed = run_for(moment, self.run)
        place = self.cast.place
        allowed = [self.model]
        if self.target.exists():
            # All of it or nothing, and never without its receipt.
            assert same_model(self.model, self.target)
            assert place.receipt_path(self.request.digest).exists()
            allowed.append(self.target)
        leaked = plaintext_outside(self.cast.folder, allowed, secret_files(self.model))
        assert [] == leaked
        self.finish()
        return killed

    def finish(self) -> None:
        """Run again, as `custody host open` does, until the request is burnt."""
        place = self.cast.place
        if self.open_state():
            entry = place.ledger.find(self.request.digest)
            if interrupted(entry, self.target, place):
                burn(entry, self.cast.tpm, place, now=NOW)
            else:
                assert not self.target.exists()
                self.run()
        assert same_model(self.model, self.target)
        assert not self.open_state()
        assert [] == staging(self.cast.folder)
        for path in sorted(self.target.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        self.target.rmdir()
        self.request, self.answers = self.ask()


def kill_open(cast: Cast, kills: int) -> None:
    """Kill openings."""
    opening = Opening(cast)
    opening.target = cast.folder / "first"
    longest = duration(opening.run)
    opening.finish()
    kill_often(kills, longest, opening.attempt)


def test_an_opening_killed_at_any_moment(cast: Cast) -> None:
    """A killed open leaves no half model and no plaintext elsewhere, and runs again to its end."""
    kill_open(cast, KILLS)


@pytest.mark.soak
def test_an_opening_killed_many_times(cast: Cast) -> None:
    """The same, many times."""
    kill_open(cast, MANY)


# ── seal ─────────────────────────────────────────────────────────────────────────────────────────


def kill_seal(cast: Cast, kills: int) -> None:
    """Kill sealings."""
    out = cast.folder / "sealed.bundle"
    model = cast.model(f"source-{kills}")

    def seal() -> None:
        cast.seal_into(model, out)

    def attempt(moment: float) -> bool:
        killed = run_for(moment, seal)
        if out.exists():
            check_sealed(cast, out)
        else:
            seal()
            check_sealed(cast, out)
        assert [] == staging(cast.folder)
        pieces = secret_files(model)
        others = [p for p in cast.folder.iterdir() if p.is_dir() and p != out]
        assert [] == plaintext_outside(cast.folder, others, pieces)
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        return killed

    longest = duration(seal)
    for path in out.iterdir():
        path.unlink()
    out.rmdir()
    kill_often(kills, longest, attempt)


def check_sealed(cast: Cast, out: Path) -> None:
    """A bundle under its name is whole."""
    from custody.ops.check import check_bundle
    from custody.rules.verdicts import passed

    assert passed(check_bundle(Bundle.at(out), situation=cast.situation("pub")))


def test_a_sealing_killed_at_any_moment(cast: Cast) -> None:
    """A killed seal leaves no half bundle, and runs again to its end."""
    kill_seal(cast, KILLS)


@pytest.mark.soak
def test_a_sealing_killed_many_times(cast: Cast) -> None:
    """The same, many times."""
    kill_seal(cast, MANY)


# ── the window between the model and the burn ────────────────────────────────────────────────────


def test_killed_between_the_model_and_the_burn(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the model appeared, the next run only burns: nothing opens twice."""
    opening = Opening(cast)
    opening.target = cast.folder / "window"
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        patch.setattr("custody.ops.open.burn", die)
        assert run_for(None, opening.run)
    place = cast.place
    entry = place.ledger.find(opening.request.digest)
    assert same_model(opening.model, opening.target)
    assert interrupted(entry, opening.target, place)
    assert cast.tpm.read_counter(entry.counter_index) == entry.counter
    burn(entry, cast.tpm, place, now=NOW)
    assert cast.tpm.read_counter(entry.counter_index) == entry.counter + 1
    # The receipt of the killed run is good, and proves the release.
    receipt = ("receipt.dsse", place.receipt_path(opening.request.digest).read_bytes())
    case = case_of(cast, opening.bundle, opening.request, opening.answers, None, receipt)
    report = audit(cast, case)
    assert report.sound
    assert "opened-not-burned" == report.releases[0].outcome


def test_killed_before_the_model_appears(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the receipt and the model, the next run opens: the approvals are not lost."""
    opening = Opening(cast)
    opening.target = cast.folder / "before"
    with monkeypatch.context() as patch:
        from custody.ops import landing

        real = landing._land

        def land(output: Path, target: Path) -> None:
            if target == opening.target:
                os.kill(os.getpid(), signal.SIGKILL)
            real(output, target)

        patch.setattr("custody.ops.landing._land", land)
        assert run_for(None, opening.run)
    place = cast.place
    entry = place.ledger.find(opening.request.digest)
    assert place.receipt_path(opening.request.digest).exists()
    assert not opening.target.exists()
    assert not interrupted(entry, opening.target, place)
    opening.finish()
