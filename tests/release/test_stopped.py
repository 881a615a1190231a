"""Long commands that a person stops: they say that they go on if, and only if, they do.

Each is interrupted where it tells how far it is, as Ctrl-C does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from custody.cli import _ui
from tests.release.cast import Cast
from tests.release.test_host_commands import Run, ask, run
from tests.release.test_key_host_commands import HOST, Hosted, both, hosted
from tests.release.test_release import same_tree
from tests.release.world import REPOSITORY

__all__ = ["hosted", "run"]

STOPPED = "custody: stopped\n"
GOES_ON = f"{STOPPED}custody: hint: the same command goes on where it stopped\n"
#: ``custody``, interrupted when it first tells of a phase.
PROGRAM = """
import os
from custody.cli import _ui, main
def stop(self, phase, done_bytes, total_bytes):
    if phase == os.environ["STOP_AT"]:
        raise KeyboardInterrupt
_ui._Lines.__call__ = stop
main()
"""

Stop = Callable[[str], None]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Have the next commands interrupted when they first tell of a phase; of none: let them run."""

    def stop(phase: str) -> None:
        def told(_: object, now: str, done_bytes: int, total_bytes: int) -> None:
            if now == phase:
                raise KeyboardInterrupt

        monkeypatch.setattr(_ui._Lines, "__call__", told)

    return stop


def test_a_stopped_opening_goes_on(cast: Cast, run: Run, stop_at: Stop) -> None:
    """So it says, with --json too, and the same command opens; where it had not begun it does not
    say so.
    """
    bundle = cast.seal()
    request, answers, out = ask(cast, run, bundle), cast.folder / "answers", cast.folder / "out"
    words = ("host", "open", bundle.path, request, "--out", out, "--answers", answers)
    stop_at("open")
    said = run(*words)
    assert (130, "") == (said.code, said.out)
    assert said.err.endswith(GOES_ON)
    last = json.loads(run(*words, "--json").err.splitlines()[-1])
    hint = "the same command goes on where it stopped"
    assert {"event": "stopped", "hint": hint} == last
    assert not out.exists()
    stop_at("")
    said = run(*words)
    assert (0, True) == (said.code, "going on: " in said.err)
    assert same_tree(cast.folder / "model", out)


def test_what_had_not_begun_does_not_go_on(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before anything was written, an opening promises nothing."""
    bundle = cast.seal()
    request, answers = ask(cast, run, bundle), cast.folder / "answers"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("custody.ops.open.verified_release", stop)
    words = ("host", "open", bundle.path, request, "--out", cast.folder / "out")
    said = run(*words, "--answers", answers)
    assert (130, STOPPED) == (said.code, said.err)


def test_a_stopped_unsealing_goes_on(cast: Cast, run: Run, stop_at: Stop) -> None:
    """Opening by a kept key says so too, and does."""
    cast.next_policy(modes=("once", "sealed"))
    bundle = cast.seal()
    request, answers = ask(cast, run, bundle, "--mode", "sealed"), cast.folder / "answers"
    words = ("host", "open", bundle.path, request, "--out", cast.folder / "out")
    assert 0 == run(*words, "--answers", answers).code
    again = ("host", "unseal", bundle.path, "--out", cast.folder / "again")
    stop_at("open")
    said = run(*again)
    assert (130, GOES_ON) == (said.code, said.err)
    stop_at("")
    assert 0 == run(*again).code
    assert same_tree(cast.folder / "model", cast.folder / "again")


def test_a_stopped_check_goes_on(cast: Cast, run: Run, stop_at: Stop) -> None:
    """A check remembers the parts that were good, and says so."""
    bundle = cast.seal()
    stop_at("check")
    said = run("publisher", "check", bundle.path)
    assert (130, GOES_ON) == (said.code, said.err)
    stop_at("")
    assert 0 == run("publisher", "check", bundle.path).code


def interrupted(years: Hosted, who: str, *words: str, stop: str) -> tuple[int, str]:
    """Run somebody's command, interrupted at a phase."""
    actor = years.world[who]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        cwd=years.folder,
        timeout=60,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "CUSTODY_HOME": str(actor.home),
            "CUSTODY_ENV": str(years.folder / "env"),
            "STOP_AT": stop,
            **actor.store.environment,
        },
    )
    return done.returncode, done.stderr


def seal(years: Hosted, model: str, out: str, *more: str, stop: str) -> tuple[int, str]:
    """Seal as the publisher, interrupted at a phase."""
    words = ("publisher", "seal", model, "--name", "m", "--release", "1", "--out", out, *more)
    return interrupted(years, "pub", *words, stop=stop)


def test_a_stopped_opening_by_a_key_goes_on(hosted: Hosted) -> None:
    """On a host without a TPM too: what is there is checked, and opened once."""
    hosted.seal("by-key")
    request = hosted.ask_by_key("by-key")
    both(hosted, "by-key", request)
    words = ("host", "open-by-key", "by-key", request, "--answers", f"answers-{request}", "--out")
    code, said = interrupted(hosted, HOST, *words, "from-key", stop="open")
    assert (130, True) == (code, said.endswith(GOES_ON)), said
    assert not (hosted.folder / "from-key").exists()
    code, said = interrupted(hosted, HOST, *words, "from-key", stop="")
    assert 0 == code, said
    assert same_tree(hosted.folder / "model-by-key", hosted.folder / "from-key")


def test_a_stopped_seal_goes_on_unless_it_is_an_update_or_compressed(hosted: Hosted) -> None:
    """A whole model goes on; an update and what is compressed start again, and promise nothing."""
    hosted.seal("stopped")
    model = "model-stopped"
    assert (130, True) == (
        (whole := seal(hosted, model, "whole", stop="seal"))[0],
        whole[1].endswith(GOES_ON),
    )
    code, said = seal(hosted, model, "whole", stop="")
    assert (0, True) == (code, "going on: " in said)
    for more in (("--base", "stopped"), ("--compress", "auto")):
        code, said = seal(hosted, model, "other", *more, stop="seal")
        assert (130, True) == (code, said.endswith(STOPPED)), said
        assert not list(Path(hosted.folder).glob("*other*"))


def test_a_base_without_a_manifest_is_named(hosted: Hosted) -> None:
    """Whoever gives the model's files for the bundle is told what each option takes."""
    hosted.seal("based")
    words = ("seal", "model-based", "--name", "m", "--release", "2", "--out", "update")
    base = ("--base", "model-based")
    refused = hosted.run("pub", "publisher", *words, *base, code=4).stderr
    assert "model-based: no bundle: there is no manifest.dsse in it" in refused
    assert "hint: --base takes what was sealed" in refused
    assert "--base-model DIR" in refused
