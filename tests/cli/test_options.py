"""Whatever is typed, a command answers in its own words."""

from __future__ import annotations

import shlex
from pathlib import Path
from shutil import rmtree
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
    """Junk is a usage error, a refusal, or not there; never an internal fault.  And what is refused
    before anything was learnt leaves no home behind.
    """
    for home in (room / "home", room / "state"):
        rmtree(home, ignore_errors=True)
    said = run(*line, capsys=capsys, monkeypatch=monkeypatch)
    assert "internal fault" not in said.err, (line, said.err)
    assert said.code in {0, 1, 2, 3, 4}
    left = [home.name for home in (room / "home", room / "state") if home.exists()]
    # A log writes down that it signed nothing before it asks its token for a key.
    begun = line[:2] == ("log", "init") or line[:3] == ("log", "witness", "init")
    assert begun or [] == left, (line, said.err)


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


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (f"officer trust {'ab' * 32} --env folder", 1),
        ("officer review folder file --env folder", 3),
        ("publisher check folder --env folder", 4),
        ("custodian status --env folder", 4),
        ("custodian renew-crl --out x", 4),
        ("auditor verify folder", 4),
        ("auditor prove file --out x", 4),
        ("enroller ca crl --out x", 4),
        (f"host receipt {'ab' * 32} --out x", 4),
        (f"host cancel {'ab' * 32} --tpm tpm:", 4),
        (f"host forget {'ab' * 32} --tpm tpm:", 4),
        ("host status --tpm tpm:", 4),
        ("enroller sign --inventory file", 4),
        ("log key", 4),
        ("log checkpoint nowhere --policy file", 3),
        ("log init nowhere --origin a.b/c --token pkcs11:token=x?module-name=none", 3),
    ],
)
def test_what_is_refused_before_anything_was_learnt_leaves_no_home(
    words: str,
    code: int,
    room: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A home that is there has learnt something: a mistyped command does not begin one."""
    said = run(*shlex.split(words), capsys=capsys, monkeypatch=monkeypatch)
    assert (code, False) == (said.code, (room / "home").exists()), said.err
    assert not (room / "state").exists()
