"""Transcripts: what a person types and what he sees, as text files.

::

    # a claim
    $ custody officer trust abc
    custody: error: invalid value for DIGEST: 'abc' is no digest of 64 hex digits
    custody: hint: custody officer trust --help
    [2]

Lines after a command are its stdout, then its stderr; ``[N]`` is its exit code unless that is 0.
A line of ``...`` stands for any lines; ``{name}`` for a value the test gives.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from custody.cli import main


@dataclass(frozen=True)
class Said:
    """What one command said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Step:
    """One command of a transcript, and what it is to say."""

    command: str
    expected: str


def run(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run ``custody`` in this process."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["custody", *words])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    return Said(int(left.value.code or 0), said.out, said.err)


def read(path: Path) -> Iterator[Step]:
    """Read a transcript."""
    for block in path.read_text().split("\n$ custody")[1:]:
        command, _, expected = block.partition("\n")
        lines = [line for line in expected.splitlines() if not line.startswith("# ")]
        yield Step(command.strip(), "\n".join(lines).strip("\n"))


def replay(
    path: Path,
    values: Mapping[str, str],
    *,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run every command of a transcript and compare what it says."""
    steps = list(read(path))
    assert steps, path
    for step in steps:
        command, expected = step.command, step.expected
        for name, value in values.items():
            command = command.replace(f"{{{name}}}", value)
            expected = expected.replace(f"{{{name}}}", value)
        said = run(*shlex.split(command), capsys=capsys, monkeypatch=monkeypatch)
        found = (said.out + said.err).strip("\n")
        if said.code:
            found = f"{found}\n[{said.code}]".strip("\n")
        pattern = re.escape(expected).replace(r"\.\.\.", "(?:.|\n)*")
        assert re.fullmatch(pattern, found), f"$ custody {command}\n{found}\n-- not --\n{expected}"
