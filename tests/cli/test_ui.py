from __future__ import annotations

import io
import json
import os
import pty
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import rich.progress
import typer

from custody.cli import _ui
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm, pin_reader
from custody.errors import CustodyError, Incomplete, Malformed, Refused, Unavailable
from custody.rules.verdicts import Verdict


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Malformed("x"), 1),
        (Refused("x", check="y"), 1),
        (Unavailable("x"), 3),
        (Incomplete("x"), 4),
        (PermissionError(13, "Permission denied", "x"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    """A caller can tell stop, retry and wait apart by the exit code alone."""
    assert code == _ui.explain(error, as_json=False)


def test_an_error_says_where_what_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    """One line of reason, one for each missing thing, one hint; stdout stays empty."""
    error = Incomplete("2 more needed", missing=["sec1", "sec2"], where="a.dsse", hint="wait")
    _ui.explain(error, as_json=False)
    said = capsys.readouterr()
    assert "" == said.out
    assert [
        "custody: error: a.dsse: 2 more needed",
        "custody: missing: sec1",
        "custody: missing: sec2",
        "custody: hint: wait",
    ] == said.err.splitlines()


def test_what_the_system_refuses_is_said_in_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that may not be read is no fault of ours: its path, and why."""
    _ui.explain(PermissionError(13, "Permission denied", "/x/y"), as_json=False)
    assert "custody: error: /x/y: permission denied\n" == capsys.readouterr().err


def test_a_usage_error_is_an_event_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json whoever reads stderr needs one reader only."""
    assert 2 == _ui.explain(typer.BadParameter("no", param_hint="--x"), as_json=True)
    event = json.loads(capsys.readouterr().err)
    assert ("error", "usage", "invalid value for --x: no") == tuple(
        event[name] for name in ("event", "kind", "reason")
    )


def test_an_error_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name with line breaks or escape sequences stays one harmless line."""
    _ui.explain(Malformed("bad", where="a\n\x1b[2Jcustody: ok\u202e"), as_json=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_a_fault_of_ours_shows_no_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is named by its type: its message might hold what must not show."""
    monkeypatch.delenv("CUSTODY_TRACEBACK", raising=False)
    _ui.explain(ValueError("the share is 00ff"), as_json=False)
    err = capsys.readouterr().err
    assert "internal fault: ValueError" in err
    assert "00ff" not in err


def test_errors_are_events_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is one JSON object on stderr, with its kind and check id."""
    _ui.explain(Refused("no", check="policy.pin", where="x"), as_json=True)
    event = json.loads(capsys.readouterr().err)
    assert ("error", "refused", "policy.pin", "no", "x") == tuple(
        event[name] for name in ("event", "kind", "check", "reason", "where")
    )


def test_progress_without_a_terminal_is_a_line_a_phase(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Piped progress says each phase once, when it is done."""
    with Screen().progress() as progress:
        for done in range(0, 3001, 1000):
            progress("seal", done, 3000)
        progress("check", 5 << 20, 5 << 20)
    assert [
        "seal: 2.9 KiB, padding included",
        "check: 5.0 MiB, padding included",
    ] == capsys.readouterr().err.splitlines()


def test_a_bar_begins_with_its_own_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first frame says how much there is, and no hundred bytes that nobody counted."""
    totals = list[float | None]()
    add = rich.progress.Progress.add_task

    def seen(
        bars: rich.progress.Progress, phase: str, *, total: float | None = 100
    ) -> rich.progress.TaskID:
        totals.append(total)
        return add(bars, phase, total=total)

    monkeypatch.setattr(rich.progress.Progress, "add_task", seen)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Screen().progress() as progress:
        progress("seal", 0, 3000)
    assert [3000] == totals


def test_progress_with_json_is_events(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the last event of a phase says that all of it is done."""
    with Screen(as_json=True).progress() as progress:
        for done in range(0, 3001, 1000):
            progress("seal", done, 3000)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = {"event": "progress", "phase": "seal", "doneBytes": 3000, "totalBytes": 3000}
    assert told.items() <= events[-1].items()
    assert len(events) <= 2


def test_piped_progress_tells_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long work says every ten seconds how far it is, how fast, and how long it will take."""
    clock = iter([0.0, 0.0, 4.0, 10.0, 11.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with Screen().progress() as progress:
        for done in (0, 4, 10, 11, 20):
            progress("seal", done << 20, 20 << 20)
    expected = [
        "seal: 10.0 MiB of 20.0 MiB, 1.0 MiB/s, 10 s left",
        "seal: 20.0 MiB, padding included",
    ]
    assert expected == capsys.readouterr().err.splitlines()


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are lined up under their heads, with nothing behind them."""
    Screen().table(("pcr", "value"), [("0", "aa"), ("11", "b")])
    assert ["pcr  value", "0    aa", "11   b"] == capsys.readouterr().out.splitlines()


def test_verdicts_are_lines_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Outcome, id, subject and reason; a failed check stands out."""
    Screen().verdicts(
        [
            Verdict(check="a.b", outcome="pass", reason="good", subject="x"),
            Verdict(check="a.c", outcome="fail", reason="bad"),
            Verdict(check="a.d", outcome="not-applicable", reason="no TPM"),
        ]
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert ["ok a.b x: good", "NO a.c bad", "-- a.d no TPM"] == lines


@pytest.mark.parametrize(("typed", "agreed"), [("y", True), ("Yes", True), ("maybe", False)])
def test_only_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, *, agreed: bool) -> None:
    """A question is asked once; what is no yes is a no."""
    stdin = io.StringIO(f"{typed}\ny\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    with nullcontext() if agreed else pytest.raises(Refused):
        Screen().confirm("really?", yes=False)


def test_nobody_to_ask_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal a question is refused, unless it was answered beforehand."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(Refused) as refused:
        Screen().confirm("really?", yes=False)
    assert "--yes" in (refused.value.hint or "")
    Screen().confirm("really?", yes=True)


def test_a_pin_comes_from_a_descriptor() -> None:
    """--pin-fd N reads one line from N."""
    ours, theirs = os.pipe()
    os.write(theirs, b"271828\n")
    os.close(theirs)
    try:
        assert b"271828" == pin_reader(ours)("PIN")
    finally:
        os.close(ours)


def test_a_pin_is_asked_at_the_terminal_unseen() -> None:
    """What is typed is returned and not echoed, and the terminal is left as it was."""
    program = (
        "import termios; from custody.cli._ui import read_pin\n"
        "before = termios.tcgetattr(0)\n"
        "pin = read_pin('PIN of alice: ')\n"
        "print(len(pin), pin == b'271828', before == termios.tcgetattr(0))\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", program])
    shown = _until(terminal, b"PIN of alice: ")
    os.write(terminal, b"271828\n")
    shown += _until(terminal, b"\n6 ")
    shown += _until(terminal, b"\n")
    assert (child, 0) == os.waitpid(child, 0)
    os.close(terminal)
    assert b"6 True True" in shown
    assert b"271828" not in shown


def _until(terminal: int, wanted: bytes) -> bytes:
    """Read from a terminal until something was shown."""
    shown = b""
    end = time.monotonic() + 20
    while wanted not in shown and time.monotonic() < end:
        try:
            shown += os.read(terminal, 1024)
        except OSError:
            break
    return shown


def test_no_terminal_no_pin() -> None:
    """A process without a terminal says how else to give the PIN, and asks nobody."""
    program = (
        "from custody.cli._ui import read_pin; from custody.errors import Unavailable\n"
        "try: read_pin('PIN: ')\n"
        "except Unavailable as error: print(error.hint)\n"
    )
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(Path(__file__).parents[2])
        os.execv(
            sys.executable,
            [sys.executable, "-c", program + "else: raise SystemExit(1)\n"],
        )
    assert (child, 0) == os.waitpid(child, 0)


def test_a_uri_chooses_its_device() -> None:
    """A host's TPM is never looked for behind a PKCS#11 URI."""
    with pytest.raises(CustodyError, match="a host needs a TPM"):
        open_tpm("pkcs11:token=a")
