"""Whatever is typed, a command answers in its own words."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.core import TyperGroup

from custody.cli import app
from tests.cli.transcript import Said, run

#: What sets up a lab, or serves until it is stopped.
_LEFT_OUT = {("lab",), ("demo",), ("log", "serve")}
_JUNK = (
    *("", " ", "a\nb", "x", "-", "é", "\udcff", "0", "-1", "nan", "inf", "1e99", "9" * 400, "0x1"),
    *(".", "/", "/dev/null", "nowhere/x", "file", "folder", "folder/x", "file/x", "secret/x"),
    *("pkcs11:", "pkcs11:token=x?module-name=none", "tpm:?tcti=swtpm:path=none", "file:x", "a/b#c"),
    *("2027-01-05T12:00:00Z", "2027-13-05T12:00:00Z", "9999-12-31T23:59:59Z", "0-7,11", "P256"),
    *("ab" * 32, "AB" * 32, "ab" * 31, "keyCompromise", "once", "sha256", "\x1b[2J", "%s", "{x}"),
)


def leaves() -> list[tuple[tuple[str, ...], list[Any]]]:
    """List the commands that do something, and the parameters of each."""
    root = typer.main.get_command(app)
    found: list[tuple[tuple[str, ...], list[Any]]] = []
    pending: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while pending:
        words, command = pending.pop()
        if any(words[: len(left)] == left for left in _LEFT_OUT):
            continue
        if isinstance(command, TyperGroup):
            context = typer.Context(command, info_name="custody")
            names = command.list_commands(context)
            pending += [((*words, n), command.get_command(context, n)) for n in names]
        else:
            found.append((words, [p for p in command.params if p.name not in ("help", "pin_fd")]))
    return sorted(found, key=lambda leaf: leaf[0])


LEAVES = leaves()


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, ...]:
    """Draw a command with all that it must be given, some of what it may be, and all of it junk."""
    words, params = draw(st.sampled_from(LEAVES))
    line = list(words)
    for param in params:
        if not (param.required or draw(st.booleans())):
            continue
        if param.param_type_name == "argument":
            line.append(draw(st.sampled_from(_JUNK)))
        elif getattr(param, "is_flag", False):
            line.append(param.opts[0])
        else:
            line += [param.opts[0], draw(st.sampled_from(_JUNK))]
    return tuple(line)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of odd things to point at, with nobody's environment around."""
    for name in ("CUSTODY_ENV", "CUSTODY_TPM", "CUSTODY_EVENT_LOG", "CUSTODY_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUSTODY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "file").write_bytes(b"\xff\x00 no document")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("{}")
    (tmp_path / "secret").mkdir(mode=0o000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=command_lines())
@example(line=("officer", "approve", "folder", "file", "--out", "file", "--env", "folder"))
@example(line=("officer", "approve", "folder", "file", "--out", "x", "--hours", "nan"))
@example(line=("officer", "approve", "folder", "file", "--out", "x", "--hours", "1e99"))
@example(line=("publisher", "check", "secret", "--env", "secret"))
def test_no_option_is_a_fault_of_ours(
    line: tuple[str, ...],
    room: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Junk is a usage error, a refusal, or not there; never an internal fault."""
    said = run(*line, capsys=capsys, monkeypatch=monkeypatch)
    assert "internal fault" not in said.err, (line, said.err)
    assert said.code in {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("auditor verify folder --policy-pin abc", "--policy-pin"),
        (f"auditor verify folder --policy-pin {'ab' * 32} --at tomorrow", "--at"),
        (f"host cancel {'ab' * 3} --tpm tpm:", "REQUEST"),
        ("officer trust abc --env folder", "DIGEST"),
        ("officer deny folder file --out x --reason '' --env folder", "--reason"),
        ("host measure --tpm tpm: --out x --pcrs 99", "--pcrs"),
    ],
)
def test_a_mistyped_value_names_its_option(
    words: str,
    option: str,
    room: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be what was meant is a usage error, before anything is opened or asked."""
    said: Said = run(*shlex.split(words), capsys=capsys, monkeypatch=monkeypatch)
    assert (2, True) == (said.code, f"invalid value for {option}: " in said.err), said.err
