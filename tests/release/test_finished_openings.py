"""``custody host open``, killed once the model is there: the same command again does the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from custody.formats.burn import Burn
from custody.formats.envelope import decode_statement
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.ops import landing
from custody.ops.linux import rename_new
from tests.release.cast import NOW, Cast
from tests.release.test_host_commands import Run, Said, ask, run, verify
from tests.release.test_kills import run_for
from tests.release.test_release import same_tree

__all__ = ["run"]

Kill = Callable[[pytest.MonkeyPatch, Path], None]


def die(*_: object, **__: object) -> None:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _writing(name: str, *, after: bool = False) -> Kill:
    """Kill the process when it gives a file of such a name its name, before or after."""

    def kill(patch: pytest.MonkeyPatch, _: Path) -> None:
        land, replace = landing._land, Path.replace

        def around(target: Path, write: Callable[[], object]) -> None:
            if str(target).endswith(name) and not after:
                die()
            write()
            if str(target).endswith(name):
                die()

        patch.setattr(landing, "_land", lambda output, to: around(to, lambda: land(output, to)))
        patch.setattr(Path, "replace", lambda path, to: around(to, lambda: replace(path, to)))

    return kill


def _calling(name: str) -> Kill:
    return lambda patch, _: patch.setattr(name, die)


def _model_renamed(patch: pytest.MonkeyPatch, out: Path) -> None:
    def rename(output: Path, target: Path) -> None:
        rename_new(output, target)
        if target == out:
            die()

    patch.setattr(landing, "rename_new", rename)


KILLS: dict[str, Kill] = {
    "the model was renamed": _model_renamed,
    "the burn begins": _calling("custody.ops.open.burn"),
    "the counter went up": _writing(".burn.dsse"),
    "the burn is kept": _writing(".burn.dsse", after=True),
    "the request is forgotten": _calling("custody.cli._open.hand_out"),
    "the receipt is handed out": _writing("/receipt.dsse", after=True),
}


class Killed:
    """A request that ``host open`` was killed over, once its model was there."""

    def __init__(
        self,
        cast: Cast,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        kill: Kill = KILLS["the burn begins"],
        *options: str,
    ) -> None:
        self.cast, self._run, self._patch = cast, run, monkeypatch
        self.bundle = cast.seal()
        self.request = ask(cast, run, self.bundle, *options)
        self.digest = decode_statement(Request, self.request.read_bytes()).digest
        self.counter = cast.place.find(self.digest)
        self.out = cast.folder / "out"
        self.receipt, self.burn = cast.folder / "receipt.dsse", cast.folder / "burn.dsse"
        with monkeypatch.context() as patch:
            kill(patch, self.out)
            assert run_for(None, self.open)
        self.inode = self.out.stat().st_ino

    def open(self, *more: object, out: Path | None = None) -> Said:
        """Type the command."""
        words = ("--answers", self.cast.folder / "answers", "--out", out or self.out)
        files = ("--receipt", self.receipt, "--burn", self.burn)
        return self._run("host", "open", self.bundle.path, self.request, *words, *files, *more)

    def again(self, *more: object, out: Path | None = None) -> Said:
        """Type it again, where no TPM is asked to open anything."""
        with self._patch.context() as patch:
            patch.setattr("custody.ops.open._open_in_tpm", _twice)
            return self.open(*more, out=out)

    def burnt(self) -> bool:
        """Ask the TPM."""
        return self.cast.tpm.read_counter(self.counter.counter_index) > self.counter.counter

    def check_finished(self) -> None:
        """The model is the one that was opened, nothing lies about, and auditors are content."""
        assert same_tree(self.cast.folder / "model", self.out)
        assert self.inode == self.out.stat().st_ino
        assert [] == [path.name for path in self.cast.folder.glob(".*")]
        assert self.burnt()
        assert () == self.cast.place.ledger.all()
        said = verify(self.cast, self._run, self.bundle, self.request, self.receipt, self.burn)
        assert "gpu-1 (software TPM): opened and burned\n" in said.out
        assert (0, "sound") == (said.code, said.out.splitlines()[-1])


def _twice(*_: object, **__: object) -> None:
    raise AssertionError("it is opened twice")


@pytest.mark.parametrize("name", KILLS)
def test_the_same_command_does_the_rest(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed anywhere once the model is there, it burns, hands out both files, and is content.

    So it is however often it is typed, and opens nothing.
    """
    killed = Killed(cast, run, monkeypatch, KILLS[name])
    said = killed.again()
    assert 0 == said.code, said.err
    assert f"into {killed.out}\n" in said.out
    killed.check_finished()
    shown = json.loads((told := killed.again("--json")).out)
    receipt = decode_statement(Receipt, killed.receipt.read_bytes()).digest
    assert (0, {"target": str(killed.out), "receipt": receipt}) == (told.code, shown)
    killed.check_finished()


def test_it_is_so_after_a_power_cut_and_when_the_lists_have_run_out(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left to do takes a TPM and this home: no boot state, no list and no log."""
    killed = Killed(cast, run, monkeypatch)
    assert not killed.burnt()
    cast.machine.reboot()
    later = NOW + timedelta(days=400)
    with monkeypatch.context() as patch:
        patch.setattr("custody.cli._home.utc_now", lambda: later)
        said = killed.again("--log", "http://127.0.0.1:1")
    assert (0, True) == (said.code, "not offered to the log" in said.err), said.err
    assert later == decode_statement(Burn, killed.burn.read_bytes()).predicate.burned_at
    cast.boot()
    killed.check_finished()


def test_a_key_that_was_kept_is_there_for_restarts(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening that kept its key, killed and finished, unseals."""
    cast.next_policy(modes=("once", "sealed"))
    killed = Killed(cast, run, monkeypatch, KILLS["the burn begins"], "--mode", "sealed")
    assert 0 == killed.again().code
    assert killed.burnt()
    assert 0 == run("host", "unseal", killed.bundle.path, "--out", cast.folder / "again").code
    assert same_tree(killed.out, cast.folder / "again")


def test_it_is_opened_nowhere_else(cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither into another folder nor in memory; which command finishes it is said."""
    killed = Killed(cast, run, monkeypatch)
    said = killed.again(out=cast.folder / "elsewhere")
    assert (1, True) == (said.code, f"was opened into {killed.out}" in said.err), said.err
    assert f"custody host cancel {killed.digest[:16]}" in said.err
    words = (killed.bundle.path, killed.request, "config.json")
    said = run("host", "read", *words, "--answers", cast.folder / "answers")
    assert (1, True) == (said.code, f"was opened into {killed.out}" in said.err), said.err
    assert (False, False) == (killed.burnt(), (cast.folder / "elsewhere").exists())
    # What the hint says does it too; and then the same command has only to hand out.
    assert 0 == run("host", "cancel", killed.digest[:16]).code
    assert killed.burnt()
    assert 0 == killed.again().code
    killed.check_finished()


def test_another_folder_of_that_name_is_not_the_model(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in its place burns nothing, and is not called opened; the model in its place again is
    what it was.
    """
    killed = Killed(cast, run, monkeypatch)
    away = cast.folder / "away"
    killed.out.rename(away)
    shutil.copytree(away, killed.out)
    said = killed.again()
    assert (1, True) == (said.code, "already there; it is never overwritten" in said.err)
    assert not killed.burnt()
    shutil.rmtree(killed.out)
    away.rename(killed.out)
    assert 0 == killed.again().code
    killed.check_finished()
    # Once it has ended, that is what is told.
    killed.out.rename(away)
    shutil.copytree(away, killed.out)
    said = killed.again()
    assert (1, True) == (said.code, "was opened at" in said.err), said.err


def test_a_file_in_the_way_keeps_no_request_from_being_burnt(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays as it is; the error says where the receipt is kept, and that command copies it."""
    killed = Killed(cast, run, monkeypatch)
    killed.receipt.write_text("mine")
    said = killed.again()
    hint = f"custody host receipt {killed.digest[:16]} --out FILE"
    assert (1, True) == (said.code, hint in said.err), said.err
    assert ("mine", True) == (killed.receipt.read_text(), killed.burnt())
    killed.receipt.unlink()
    words = ("--out", killed.receipt, "--burn", killed.burn)
    assert 0 == run("host", "receipt", killed.digest[:16], *words).code
    killed.check_finished()


def test_so_many_endings_are_remembered(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a request was opened to is forgotten in time, the oldest first; never that it was."""
    monkeypatch.setattr("custody.ops.outstanding._REMEMBERED", 1)
    words = []
    for name in ("one", "two"):
        bundle = cast.seal(name)
        request = ask(cast, run, bundle).rename(cast.folder / f"{name}.dsse")
        answers = (cast.folder / "answers").rename(cast.folder / f"answers-{name}")
        out = ("--out", cast.folder / f"out-{name}")
        words.append(("host", "open", bundle.path, request, "--answers", answers, *out))
        assert 0 == run(*words[-1]).code
    first, second = (run(*typed) for typed in words)
    assert (1, True) == (first.code, "was opened at" in first.err), first.err
    assert 0 == second.code, second.err
