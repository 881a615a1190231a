from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import typer.main
from typer.core import TyperGroup

from custody import __version__
from custody.cli import ROLES, app
from custody.ops.spoken import spoken
from tests.cli.transcript import run


def commands() -> Iterator[tuple[str, ...]]:
    """Name every command there is, groups included."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    pending: list[tuple[tuple[str, ...], object]] = [((), root)]
    while pending:
        words, command = pending.pop()
        yield words
        if isinstance(command, TyperGroup):
            context = typer.Context(command, info_name="custody")
            pending += [
                ((*words, name), command.get_command(context, name))
                for name in command.list_commands(context)
                if words or find_spec(f"custody.cli.{name}")
            ]


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_help_has_an_example(
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Help ends with an example that begins with the command itself, or with one below it."""
    said = run(*words, "--help", capsys=capsys, monkeypatch=monkeypatch)
    assert 0 == said.code
    assert "Example:" in said.out
    assert " ".join(("custody", *words)) in said.out.partition("Example:")[2]


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_help_names_values_in_words(
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No type of Python stands in a help text, no brackets to be typed, and no line is too long."""
    monkeypatch.setenv("COLUMNS", "80")
    said = run(*words, "--help", capsys=capsys, monkeypatch=monkeypatch).out
    shown = said.partition("Example:")[0]
    usage = shown.splitlines()[0]
    assert not set("<>{}") & set(shown), shown
    assert "[[" not in usage
    given = usage.partition("[OPTIONS]")[2].partition("[ARGS]")[0]
    assert given == given.upper()
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_help_says_what_may_be_chosen_and_in_which_bounds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few short words stand for the value itself; many are listed in the words beside it."""
    monkeypatch.setenv("COLUMNS", "80")
    helps = {
        words: " ".join(run(*words, "--help", capsys=capsys, monkeypatch=monkeypatch).out.split())
        for words in (("publisher", "seal"), ("officer", "enroll"), ("auditor", "show"))
    }
    assert "--compress none|auto " in helps["publisher", "seal"]
    assert "[default: 90; 1 to 36500]" in helps["publisher", "seal"]
    assert "seal [OPTIONS] MODEL " in helps["publisher", "seal"]
    listed = "--suite SUITE What shares are sealed to you by: RSA2048_OAEP_SHA1, "
    assert listed in helps["officer", "enroll"]
    assert "P384, MLKEM1024_P384. [default: " in helps["officer", "enroll"]
    assert "show [OPTIONS] ARCHIVE... REQUEST " in helps["auditor", "show"]


def test_help_lists_first_what_everybody_begins_with(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making keys and pinning the policy come before what is done every day."""
    for role, first in (("enroller", ["enroll", "trust"]), ("custodian", ["init", "enroll"])):
        listed = run(role, "--help", capsys=capsys, monkeypatch=monkeypatch).out
        lines = listed.partition("Commands:\n")[2].splitlines()
        names = [line.split()[0] for line in lines if line.strip() and line[2] != " "]
        assert first == names[:2]


def test_help_lists_commands_with_whole_sentences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a command does is cut off in the list, and no marks of docstrings are shown."""
    monkeypatch.setenv("COLUMNS", "80")
    for role in ROLES:
        listed = run(role, "--help", capsys=capsys, monkeypatch=monkeypatch).out
        assert "..." not in listed.partition("COMMAND [ARGS]...")[2], listed
        assert "``" not in listed
    words = ("auditor", "report", "--help")
    assert "Judge a case as verify does" in run(*words, capsys=capsys, monkeypatch=monkeypatch).out


def test_the_version_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`custody --version` is one line on stdout."""
    said = run("--version", capsys=capsys, monkeypatch=monkeypatch)
    assert (0, f"custody {__version__}\n", "") == (said.code, said.out, said.err)


def test_help_imports_no_role() -> None:
    """Start-up is quick because help and completion import neither roles, devices nor rich."""
    program = (
        "import sys; from custody.cli import main; sys.argv = ['custody', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in"
        " {'custody', 'rich', 'cryptography', 'msgspec', 'pkcs11', 'tpm2_pytss'}),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    needed = [
        "custody",
        *(f"custody.cli{name}" for name in ("", "._help", "._later", "._plain", "._streams")),
    ]
    assert str(needed) == done.stderr.strip()
    assert all(f"  {role} " in done.stdout for role in ROLES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("oficer",), "no such command 'oficer'. Did you mean 'officer'?"),
        (("--nonsense",), "no such option: --nonsense"),
        (("officer", "trust"), "missing argument 'DIGEST'"),
        (("officer", "gibberish"), "no such command 'gibberish'"),
        (
            ("custodian", "revoke", "a.cer", "--out", "a.crl", "--reason", "lost"),
            (
                "invalid value for '--reason': 'lost' is not one of 'unspecified', 'keyCompromise',"
                " 'affiliationChanged', 'superseded', 'cessationOfOperation', 'privilegeWithdrawn'"
            ),
        ),
        (
            ("custodian", "revoke", "a.cer", "--out", "a.crl"),
            (
                "missing option '--reason'. Choose from: unspecified, keyCompromise,"
                " affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn"
            ),
        ),
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistyped command says what is wrong and where help is, on stderr alone."""
    said = run(*words, capsys=capsys, monkeypatch=monkeypatch)
    assert (2, "") == (said.code, said.out)
    first, hint = said.err.splitlines()
    assert f"custody: error: {message}" == first
    assert hint.startswith("custody: hint: custody")


def test_a_digest_is_spoken_whole() -> None:
    """Every digit is in the words, in order: part of a digest is not enough to compare."""
    digest = "0123456789abcdef" * 4
    lines = spoken(digest)
    assert 8 == len(lines)
    assert "01234567  zero one two three four five six seven" == lines[0]
    assert "89abcdef  eight nine alfa bravo charlie delta echo foxtrot" == lines[1]
    assert digest == "".join(line.split()[0] for line in lines)
