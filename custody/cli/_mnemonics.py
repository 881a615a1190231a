"""Words on a screen that is cleared: shown to one person, typed by one person.

The alternate screen keeps no scrollback on terminals that follow xterm.  What Python makes of words
on the way cannot be wiped: do this on a machine that is switched off afterwards.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from custody.cli._ui import read_pin
from custody.crypto.secret import wipe
from custody.crypto.slip39 import (
    WORDS,
    Mnemonic,
    check_passphrase,
    missing_shares,
    unknown_word,
)
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.envelope import Statement
from custody.formats.recovery import RecoveryRecord
from custody.ops.recovery import HandedShare, next_share

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_ENTER = "\x1b[?1049h" + _CLEAR
_LEAVE = _CLEAR + "\x1b[?1049l"
_LINE_BYTES = 4096
_MAX_BYTES = 1 << 16
_COLUMNS = 3
_ASKED_AGAIN = 3


class Sheet:
    """A cleared screen of the controlling terminal, whatever stdin and stdout are."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def clear(self) -> None:
        """Leave nothing on it."""
        self.write(_CLEAR)

    def write(self, text: str) -> None:
        """Write to the person who sits there."""
        os.write(self._terminal, text.encode())

    def ask(self, question: str) -> str:
        """Return one line that was typed; a terminal that is gone is `Unavailable`."""
        self.write(question)
        line = os.read(self._terminal, _LINE_BYTES)
        if not line:
            raise Unavailable("the terminal was closed")
        return line.decode("utf-8", "replace").strip()


@contextmanager
def sheet() -> Iterator[Sheet]:
    """Give a screen that is cleared before and after, and keeps no lines that scrolled away.

    Without a terminal, or on one that cannot be cleared, `Unavailable`.
    """
    terminal = _open_terminal()
    shown = Sheet(terminal)
    try:
        shown.write(_ENTER)
        yield shown
    finally:
        shown.write(_LEAVE)
        os.close(terminal)


def check_terminal() -> None:
    """Say that words could not be shown or typed, before it comes to that: `Unavailable`."""
    os.close(_open_terminal())


def _open_terminal() -> int:
    if os.environ.get("TERM", "dumb") == "dumb":
        raise Unavailable(
            "words are shown only on a terminal that can be cleared", hint="set TERM to yours"
        )
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("there is no terminal to show words on, or to type them at") from error


def hand_out(shares: Sequence[HandedShare]) -> None:
    """Show each person his words, alone, until he has typed some of them again."""
    with sheet() as screen:
        for number, handed in enumerate(shares, 1):
            share = handed.share
            screen.clear()
            screen.ask(
                f"share {number} of {len(shares)}, for {share.holder}: group {share.group + 1}, "
                f"share {share.member + 1}\r\n\r\n"
                f"nobody but {share.holder} looks at this screen now\r\n"
                "press Enter to see the words: "
            )
            _until_written(screen, handed.words.split())


def _until_written(screen: Sheet, words: Sequence[str]) -> None:
    while True:
        screen.clear()
        screen.ask(f"{_laid_out(words)}\r\n\r\nwrite all {len(words)} down, then press Enter: ")
        screen.clear()
        asked = sorted(secrets.SystemRandom().sample(range(len(words)), _ASKED_AGAIN))
        wrong = [at for at in asked if screen.ask(f"word {at + 1}: ").lower() != words[at]]
        if not wrong:
            return
        screen.ask(f"\r\nword {wrong[0] + 1} is another: press Enter to see them again: ")


def _laid_out(words: Sequence[str]) -> str:
    rows = -(-len(words) // _COLUMNS)
    cells = [f"{at:2} {word:10}" for at, word in enumerate(words, 1)]
    return "\r\n".join("   ".join(cells[row::rows]).rstrip() for row in range(rows))


def read_shares(descriptor: int) -> tuple[str, ...]:
    """Read shares from a descriptor, one a line."""
    data = b""
    try:
        while piece := os.read(descriptor, _MAX_BYTES):
            data += piece
            if len(data) > _MAX_BYTES:
                raise Malformed("more words than all shares of a set have")
    except OSError as error:
        raise Unavailable(f"cannot read shares ({error.strerror})") from error
    return tuple(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())


def gather(
    record: Statement[RecoveryRecord], words_fd: int | None, sealed: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return shares until there are enough: from a descriptor, or typed by one person at a time.

    ``sealed`` are those that tokens opened already.
    """
    if words_fd is not None:
        return (*sealed, *read_shares(words_fd))
    have: list[Mnemonic] = []
    for text in sealed:
        have.append(next_share(record, have, text)[1])
    if have and not missing_shares(have):
        return tuple(sealed)
    with sheet() as screen:
        while missing := missing_shares(have):
            screen.clear()
            screen.write(f"still needed: {', '.join(missing)}\r\n")
            have.append(_typed(screen, record, have))
    return tuple(mnemonic.words for mnemonic in have)


def one_share(words_fd: int | None) -> str:
    """Return one person's words: from a descriptor, or typed on a screen that is cleared."""
    if words_fd is None:
        with sheet() as screen:
            return _ask_words(screen)
    found = read_shares(words_fd)
    if len(found) != 1:
        raise Malformed(f"{len(found)} shares were given, and one is checked at a time")
    return found[0]


def _typed(screen: Sheet, record: Statement[RecoveryRecord], have: Sequence[Mnemonic]) -> Mnemonic:
    """Ask until a share is good: who mistyped a word has not come for nothing."""
    while True:
        try:
            return next_share(record, have, _ask_words(screen))[1]
        except Refused as error:
            hint = f" ({error.hint})" if error.hint else ""
            screen.clear()
            screen.write(f"{error.reason}{hint}\r\n\r\n")


def _ask_words(screen: Sheet) -> str:
    """Ask for words on as many lines as one likes; an empty line, or enough of them, ends them.

    One that is in no list is asked for again, with what came after it, and those before it stay.
    """
    words: list[str] = []
    screen.write(
        f"type the {WORDS} words, one a line or with spaces between them; nobody else looks\r\n"
    )
    while len(words) < WORDS:
        line = screen.ask(f"word {len(words) + 1} and on: ").split()
        if not line:
            break
        words += line
        unknown = unknown_word(words)
        if unknown is not None:
            del words[unknown:]
            screen.write(f"word {unknown + 1} is no word of the list: type it again\r\n")
    return " ".join(words)


def ask_passphrase(*, twice: bool) -> bytes:
    """Ask for the passphrase of a recovery key, unseen; a new one twice."""
    first = read_pin("passphrase of the recovery key")
    try:
        check_passphrase(bytes(first))
        if twice:
            again = read_pin("the same again")
            same = again == first
            wipe(again)
            if not same:
                raise Refused("the two are not the same", check="recovery.passphrase")
        return bytes(first)
    finally:
        wipe(first)
