"""PINs: asked of a person, read from a descriptor or a file; held once, wiped, never retried.

A PIN is never taken from a command line or the environment, where other processes can read it,
and never offered twice: three wrong tries lock most tokens, and a program that retries a mistyped
PIN locks its owner out.
"""

from __future__ import annotations

import os
import stat
from typing import Protocol

from custody.crypto.secret import wipe
from custody.errors import Malformed, Refused, Unavailable

#: Longest PIN read, in bytes.
MAX_PIN_BYTES = 255


class PinReader(Protocol):
    """Asks the person."""

    def __call__(self, prompt: str, /) -> bytearray:
        """Return what was typed; ``prompt`` says for which token.  Who asked wipes it."""


class PinNotice(Protocol):
    """Tells the person where a PIN is waited for that is not asked here."""

    def __call__(self, text: str, /) -> None:
        """Show one line."""


class Pin:
    """One token's PIN for one command.

    It is read at its first use, kept in one buffer and wiped by `wipe`.  After `spoil` (the token
    said no) it is gone: every later use is `Refused` before the token hears of it.
    """

    def __init__(self, source: str | None, reader: PinReader | None, *, prompt: str) -> None:
        self._source = source
        self._reader = reader
        self._prompt = prompt
        self._value: bytearray | None = None
        self._over: Refused | Unavailable | None = None

    def __repr__(self) -> str:
        return "<Pin>"

    def read(self) -> bytearray:
        """Return the PIN's own buffer, which the caller must not keep."""
        self.check()
        if self._value is None:
            self._value = self._ask()
        return self._value

    def check(self) -> None:
        """Raise what `spoil` or `wipe` left as the answer, if either was called."""
        if self._over is not None:
            raise self._over

    def spoil(self, reason: Refused) -> None:
        """Wipe the PIN and answer every later use with ``reason``."""
        self._end(reason)

    def wipe(self) -> None:
        """Overwrite the PIN and answer every later use with `Unavailable`."""
        self._end(self._over or Unavailable("the token was closed, its PIN is forgotten"))

    def _end(self, reason: Refused | Unavailable) -> None:
        if self._value is not None:
            wipe(self._value)
        self._value, self._over = None, reason

    def _ask(self) -> bytearray:
        if self._source is not None:
            return read_pin_source(self._source)
        if self._reader is None:
            raise Unavailable(
                "a PIN is needed and nobody can be asked",
                hint="name it by pin-source in the key URI",
            )
        value = self._reader(self._prompt)
        _check(value, where=None)
        return value


def read_pin_source(source: str) -> bytearray:
    """Read a PIN from ``fd:N``, ``file:/path`` or ``/path``, without one trailing newline.

    A file must belong to this user alone: `Refused` (``pin.source``) if group or others can reach
    it, if it is empty or holds more than one line; `Unavailable` if it cannot be read.
    """
    if source.startswith("fd:"):
        number = source[3:]
        if not number.isascii() or not number.isdigit() or len(number) > 6:
            raise Malformed("pin-source fd: takes the number of an open descriptor")
        return _drain(int(number), where=source)
    path = source.removeprefix("file://") if source.startswith("file:///") else source
    path = path.removeprefix("file:")
    if not path.startswith("/"):
        raise Malformed("pin-source is not fd:N, file:/path or an absolute path")
    try:
        # O_NONBLOCK: a FIFO put in the file's place must not hang the command.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unavailable(f"cannot read the PIN file ({error.strerror})", where=path) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise Refused("the PIN source is not a regular file", check="pin.source", where=path)
        if mode & 0o077:
            raise Refused(
                "the PIN file can be reached by other users",
                check="pin.source",
                where=path,
                hint=f"chmod 600 {path}",
            )
        return _drain(descriptor, where=path)
    finally:
        os.close(descriptor)


def _drain(descriptor: int, *, where: str) -> bytearray:
    # Two bytes more than a PIN: its newline, and one that shows it is too long.
    buffer = bytearray(MAX_PIN_BYTES + 2)
    filled = 0
    try:
        while filled < len(buffer):
            count = os.readv(descriptor, [memoryview(buffer)[filled:]])
            if count == 0:
                break
            filled += count
    except OSError as error:
        wipe(buffer)
        raise Unavailable(f"cannot read the PIN ({error.strerror})", where=where) from error
    if filled and buffer[filled - 1] == 0x0A:
        filled -= 1
    value = buffer[:filled]
    wipe(buffer)
    _check(value, where=where)
    return value


def _check(value: bytearray, *, where: str | None) -> None:
    fault = None
    if not value:
        fault = "the PIN is empty; nothing was tried"
    elif len(value) > MAX_PIN_BYTES:
        fault = f"the PIN is longer than {MAX_PIN_BYTES} bytes"
    elif any(value.find(stop) >= 0 for stop in (b"\n", b"\r", b"\0")):
        fault = "the PIN holds a line break or a zero byte"
    if fault is not None:
        wipe(value)
        raise Refused(fault, check="pin.source", where=where)
