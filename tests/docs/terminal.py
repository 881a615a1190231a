"""Types commands at a terminal, as documents show them, and compares what comes out.

What changes from run to run (digests, times, words read aloud) is compared loosely, and a digest
in a command stands for the one that was printed in its place.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from custody.ops.spoken import spoken

ROOT = Path(__file__).resolve().parents[2]

_HEX = re.compile(r"[0-9a-f]{8,}")
_WORDS = "alfa|bravo|charlie|delta|echo|foxtrot|zero|one|two|three|four|five|six|seven|eight|nine"
_SPOKEN = re.compile(rf"(?:(?:{_WORDS})(?: |$)){{8}}")
_ALOUD = re.compile(rf"^( +)([0-9a-f]{{8}})  {_SPOKEN.pattern}$", re.MULTILINE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\dZ?)?")
_PROCESS = re.compile(r"process \d+")
_PROMPT = re.compile(rb"PIN of [^\n]*: $")
_QUESTION = re.compile(rb"\[y/N\]: $")
_PRIVATE = re.compile(r"\x1b\[\?1049h.*?\x1b\[\?1049l", re.DOTALL)
_CLEARED = "\x1b[H\x1b[2J\x1b[3J"
_NUMBERED = re.compile(r"\b(\d+) ([a-z]+)")
_ONE_WORD = re.compile(r"word (\d+): $")
_FAILED = re.compile(r"^custody: error: |^NO  |NOT SOUND|^late  |^ends  ?\d", re.MULTILINE)
_SECONDS = 200


@dataclass(frozen=True, slots=True)
class Shown:
    """What stood on the screen when a command had ended."""

    text: str
    code: int


@dataclass
class Paper:
    """What people wrote down of the words they were shown, and type again when they are asked."""

    shares: list[list[str]] = field(default_factory=list)
    turn: int = 0

    def agree(self, text: str) -> None:
        """Do what people do at the table before they say yes at a screen that ends like this."""

    def answer(self, text: str) -> str | None:
        """Say what is typed next at a screen that ends like this, or nothing."""
        shown = text.rpartition(_CLEARED)[2]
        if shown.endswith(("words: ", "press Enter: ", "them again: ", "as on the paper): ")):
            listed, shows_words, _ = shown.partition("write all")
            if shows_words:
                words = dict(_NUMBERED.findall(listed))
                self.shares.append([words[str(at)] for at in range(1, 34)])
            return ""
        if asked := _ONE_WORD.search(shown):
            return self.shares[-1][int(asked[1]) - 1]
        if shown.endswith("word 1 and on: "):
            self.turn += 1
            return " ".join(self.shares[self.turn - 1])
        return None


def commands_of(block: str) -> Iterator[tuple[str, str]]:
    """Give each command of a console block with the output that is written under it."""
    pieces = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert "" == pieces[0].strip(), f"begins with output: {pieces[0]}"
    for piece in pieces[1:]:
        command, _, output = piece.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command += "\n" + more.removeprefix("> ")
        yield command, output


def fails(expected: str) -> bool:
    """Tell whether a written output is that of a command that fails."""
    return bool(_FAILED.search(expected))


def write_program(directory: Path) -> None:
    """Put a `custody` that runs this checkout into ``directory``."""
    directory.mkdir()
    program = directory / "custody"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m custody "$@"\n')
    program.chmod(0o755)


def environment(home: Path, programs: Path, more: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a person's shell knows."""
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
        **more,
    }


def enter(
    command: str,
    *,
    directory: Path,
    env: Mapping[str, str],
    pin: str = "",
    paper: Paper | None = None,
) -> Shown:
    """Run a command at a terminal of its own; the PIN is typed when asked, every question yes.

    Words for paper are written down and typed again on ``paper``.
    """
    paper = paper or Paper()
    paper.turn = 0
    keyboard, screen = pty.openpty()
    child = subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", command],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        cwd=directory,
        env=env,
    )
    os.close(screen)
    text = b""
    with os.fdopen(keyboard, "r+b", buffering=0) as terminal:
        end = time.monotonic() + _SECONDS
        while piece := _read(terminal.fileno(), child, end):
            text += piece
            if asked := _PROMPT.search(text):
                # The lab gives a token's security officer a PIN that says so.
                who = "so " if b"security officer" in asked[0] else ""
                terminal.write(f"{who}{pin}\n".encode())
            elif _QUESTION.search(text):
                paper.agree(text.decode("utf-8", "replace"))
                terminal.write(b"y\n")
            elif (typed := paper.answer(text.decode("utf-8", "replace"))) is not None:
                terminal.write(f"{typed}\n".encode())
        # Only then may the terminal go: it would take a shell that is still ending with it.
        code = child.wait(_SECONDS)
    return Shown(_tidy(text.decode()), code)


def _read(terminal: int, child: subprocess.Popen[bytes], end: float) -> bytes:
    """Wait for more on the screen; nothing when the command, though not all it began, has ended."""
    while time.monotonic() < end:
        over = child.poll() is not None
        if select.select([terminal], [], [], 0 if over else 0.1)[0]:
            try:
                return os.read(terminal, 65536)
            except OSError:
                return b""
        if over:
            return b""
    child.kill()
    raise AssertionError(f"still running after {_SECONDS} s: {child.args!r}")


def _tidy(text: str) -> str:
    # A progress bar on a plain terminal leaves an empty line where it was.
    # Nor is anything left of a screen that was cleared.
    lines = [line.rstrip() + "\n" for line in _PRIVATE.sub("", text).splitlines()]
    return "".join(lines).lstrip("\n").replace(":\n\n", ":\n")


@dataclass
class Digests:
    """Which of today's digests stands for which of a document's."""

    today: dict[str, str] = field(default_factory=dict)

    def learn(self, expected: str, shown: str) -> None:
        """Hold what is written against what was shown, line by line."""
        old, new = _filled(expected), _filled(shown)
        if "..." in old:
            for line in old:
                for other in new:
                    self._learn_line(line, other)
        else:
            for line, other in zip(old, new, strict=False):
                self._learn_line(line, other)

    def _learn_line(self, old: str, new: str) -> None:
        if loose(old) == loose(new):
            self.today.update(zip(_HEX.findall(old), _HEX.findall(new), strict=True))

    def translate(self, text: str) -> str:
        """Put today's digests where a document's are, whole or shortened."""
        return _HEX.sub(lambda found: self._of_today(found[0]), text)

    def _of_today(self, written: str) -> str:
        for old, new in self.today.items():
            if old.startswith(written):
                return new[: len(written)]
        return written

    def as_written(self, shown: str) -> str:
        """Put a document's digests where today's are."""
        back = {new: old for old, new in self.today.items()}
        digests = _HEX.sub(lambda found: back.get(found[0], found[0]), shown)
        return _ALOUD.sub(lambda found: found[1] + spoken(found[2])[0], digests)


def loose(text: str) -> str:
    """Blank out what is different in every run."""
    if text.startswith("approved ") and "good until" not in text:
        # Two approvals of one second are in no order.
        text = ", ".join(sorted(text.removeprefix("approved ").split(", ")))
    for pattern, mark in ((_HEX, "#"), (_TIME, "@"), (_SPOKEN, "words"), (_PROCESS, "process")):
        text = pattern.sub(mark, text)
    return re.sub(r" +", " ", text).strip()


def agree(expected: str, shown: str) -> bool:
    """Compare a written block with what was seen; a line ``...`` stands for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(loose(line)) + r"\n"
        for line in _filled(expected)
    )
    seen = "".join(loose(line) + "\n" for line in _filled(shown))
    return re.fullmatch(pattern, seen) is not None


def _filled(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
