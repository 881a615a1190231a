"""What people see: results on stdout, talk on stderr, errors as one line, progress, questions.

rich is imported only where a table or a progress bar is really drawn.
"""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import typer

from custody.cli._hints import HINTS
from custody.cli._streams import fitting
from custody.crypto.secret import wipe
from custody.encoding import Digest
from custody.errors import CustodyError, Incomplete, Refused, Unavailable
from custody.keys.pin import MAX_PIN_BYTES
from custody.ops.progress import Progress
from custody.ops.spoken import spoken
from custody.rules.verdicts import Verdict

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INCOMPLETE = 4
EXIT_STOPPED = 130

#: Work on whole parts: a small model is as large as its bundle there.
_PADDED = ("seal", "open", "check")
_MARKS = {"pass": "ok", "fail": "NO", "not-applicable": "--"}


class Stopped(typer.Abort):
    """A person interrupted what goes on when the same command is given again."""


class Screen:
    """Where one command writes.  With ``as_json`` stdout carries one JSON document and no words."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, value: object, words: Callable[[], None]) -> None:
        """Show what a command found: ``value`` as JSON, or what ``words`` writes."""
        if self.as_json:
            typer.echo(fitting(to_json(value), sys.stdout))
        else:
            words()

    def show(self, text: str = "") -> None:
        """Write a line of the result."""
        typer.echo(text)

    def say(self, text: str) -> None:
        """Write a line of talk, which is not part of the result."""
        if self.as_json:
            _event("message", text=text)
        else:
            typer.echo(text, err=True)

    def made(self, *paths: object) -> None:
        """Show the files a command made, one a line, and nothing else."""
        self.result({"files": [str(path) for path in paths]}, lambda: _lines(paths))

    def speak(self, digest: Digest) -> None:
        """Show a digest to be compared by voice."""
        for line in spoken(digest):
            self.show(f"  {line}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows under column heads, aligned; drawn by rich on a terminal."""
        if sys.stdout.isatty():
            from custody.cli._columns import draw

            draw(columns, rows)
            return
        cells = [tuple(columns), *map(tuple, rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.show("  ".join(padded).rstrip())

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Show checks, one a line: outcome, stable id, subject, reason."""
        for verdict in verdicts:
            self.show(verdict_line(verdict))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be taken back; ``yes`` is an answer given beforehand."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise Refused(
                f"nobody is there to ask: {question}",
                check="person.confirm",
                hint="answer with --yes",
            )
        typer.echo(f"{question} [y/N]: ", err=True, nl=False)
        # Whatever is no yes is a no: here nobody is asked until he agrees.
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("not confirmed", check="person.confirm")

    @contextmanager
    def resumable(self, goes_on: Callable[[], bool]) -> Iterator[None]:
        """Have it said, where a person interrupts the block, that the same command goes on.

        That is so if ``goes_on`` says so then, of what there really is.
        """
        try:
            yield
        except KeyboardInterrupt:
            if goes_on():
                raise Stopped from None
            raise

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give a callback that shows how far long work is: a bar, plain lines, or JSON events."""
        if self.as_json or not sys.stderr.isatty():
            yield _Lines(as_json=self.as_json)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bars

        words, rest = TextColumn("{task.description:>12}"), TimeRemainingColumn()
        columns = (words, BarColumn(), DownloadColumn(), TransferSpeedColumn(), rest)
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, TaskID] = {}

            def update(phase: str, done_bytes: int, total_bytes: int) -> None:
                if phase not in tasks:
                    tasks[phase] = bars.add_task(phase, total=total_bytes)
                bars.update(tasks[phase], completed=done_bytes, total=total_bytes)

            yield update


class _Lines:
    """Progress without a terminal: a line now and then with rate and time left, one at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._every = 1.0 if as_json else 10.0
        self._next = 0.0 if as_json else time.monotonic() + self._every
        self._begun: dict[str, float] = {}

    def __call__(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        spent = now - self._begun.setdefault(phase, now)
        if done_bytes < total_bytes and now < self._next:
            return
        self._next = now + self._every
        rate = int(done_bytes / spent) if spent else 0
        left = (total_bytes - done_bytes) // rate if rate else None
        if self._as_json:
            _event(
                "progress",
                phase=phase,
                doneBytes=done_bytes,
                totalBytes=total_bytes,
                bytesPerSecond=rate,
                secondsLeft=left,
            )
        elif done_bytes >= total_bytes:
            padded = ", padding included" if phase in _PADDED else ""
            typer.echo(f"{phase}: {_size(total_bytes)}{padded}", err=True)
        else:
            waits = "" if left is None else f", {left} s left"
            done = f"{_size(done_bytes)} of {_size(total_bytes)}"
            typer.echo(f"{phase}: {done}, {_size(rate)}/s{waits}", err=True)


def verdict_line(verdict: Verdict) -> str:
    """Write a check in one line."""
    subject = f"{verdict.subject}: " if verdict.subject else ""
    words = _one_line(f"{subject}{verdict.reason}")
    return f"{_MARKS[verdict.outcome]:3} {verdict.check:32} {words}"


def _size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _lines(paths: Sequence[object]) -> None:
    for path in paths:
        typer.echo(str(path))


def to_json(value: object) -> str:
    """Write a result as one line of JSON; bytes are base64, times RFC 3339, paths strings."""
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except UnicodeEncodeError:
        import json

        # A file name that is no UTF-8; JSON can escape what it cannot encode.
        return json.dumps(msgspec.to_builtins(value, enc_hook=str), separators=(",", ":"))


def _event(name: str, **fields: object) -> None:
    typer.echo(fitting(to_json({"event": name, **fields}), sys.stderr), err=True)


def say(text: str, /) -> None:
    """Write a line of talk, whatever form the result has."""
    typer.echo(_one_line(text), err=True)


def read_pin(prompt: str, /) -> bytearray:
    """Ask for a PIN at the terminal, unseen.

    It goes straight into a buffer that can be wiped; `getpass` would leave a string behind that
    cannot.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            "a PIN is needed and there is no terminal to ask at",
            hint="give it with --pin-fd, or by pin-source in the key URI",
        ) from error
    try:
        return _ask(terminal, prompt)
    finally:
        os.close(terminal)


def _ask(terminal: int, prompt: str) -> bytearray:
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    buffer = bytearray(MAX_PIN_BYTES + 2)
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        os.write(terminal, f"{prompt}: ".encode())
        # In canonical mode one read gives one line.
        filled = os.readv(terminal, [buffer])
        os.write(terminal, b"\n")
        end = buffer.find(b"\n", 0, filled)
        return buffer[: end if end >= 0 else filled]
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        wipe(buffer)


def explain(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong in a command on stderr; return the exit code it ends with."""
    match error:
        case CustodyError():
            _print_error(error, as_json=as_json)
            return _exit_code(error)
        case typer.TyperException():
            _print_usage(error, as_json=as_json)
            return error.exit_code
        case typer.Abort() | KeyboardInterrupt():
            _print_stopped(
                "the same command goes on where it stopped" if isinstance(error, Stopped) else None,
                as_json=as_json,
            )
            return EXIT_STOPPED
        case BrokenPipeError():
            # Whoever read our output has gone; nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return EXIT_REFUSED
        case OSError():
            # A folder we may not read, a disk that went away: the system's words, without ours.
            reason = (error.strerror or type(error).__name__).lower()
            where = None if error.filename is None else str(error.filename)
            _print_error(Unavailable(reason, where=where), as_json=as_json)
            return EXIT_UNAVAILABLE
    # A fault of ours.  Its message may quote data that must not be shown; its type cannot.
    if os.environ.get("CUSTODY_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    typer.echo(f"custody: error: internal fault: {type(error).__name__}", err=True)
    typer.echo("custody: hint: set CUSTODY_TRACEBACK=1 to see where, and report it", err=True)
    return EXIT_REFUSED


def _exit_code(error: CustodyError) -> int:
    match error:
        case Unavailable():
            return EXIT_UNAVAILABLE
        case Incomplete():
            return EXIT_INCOMPLETE
        case _:
            return EXIT_REFUSED


def _print_error(error: CustodyError, *, as_json: bool) -> None:
    check = error.check if isinstance(error, Refused) else ""
    hint = error.hint or HINTS.get(check)
    if as_json:
        extra = {"check": error.check} if isinstance(error, Refused) else {}
        _event(
            "error",
            kind=type(error).__name__.lower(),
            reason=error.reason,
            where=error.where,
            hint=hint,
            missing=error.missing if isinstance(error, Incomplete) else (),
            **extra,
        )
        return
    typer.echo(f"custody: error: {_one_line(str(error))}", err=True)
    if isinstance(error, Incomplete):
        for item in error.missing:
            typer.echo(f"custody: missing: {_one_line(item)}", err=True)
    if hint:
        typer.echo(f"custody: hint: {_one_line(hint)}", err=True)


def _print_stopped(hint: str | None, *, as_json: bool) -> None:
    if as_json:
        _event("stopped", hint=hint)
        return
    if sys.stderr.isatty():
        # "^C" stands on the line.
        typer.echo(err=True)
    typer.echo("custody: stopped", err=True)
    if hint is not None:
        typer.echo(f"custody: hint: {hint}", err=True)


def _one_line(text: str) -> str:
    # A file name or a display name from a stranger's file may hold escape sequences.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _print_usage(error: typer.TyperException, *, as_json: bool) -> None:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return
    # typer lists choices in lines, and pydantic says what kind of exception it made of a value.
    message = message.replace("\n\t", " ").replace("Value error, ", "")
    message = _one_line(message[:1].lower() + message[1:])
    hint = f"{context.command_path} --help" if context is not None else None
    if as_json:
        _event("error", kind="usage", reason=message, where=None, hint=hint, missing=())
        return
    typer.echo(f"custody: error: {message}", err=True)
    if hint is not None:
        typer.echo(f"custody: hint: {hint}", err=True)
