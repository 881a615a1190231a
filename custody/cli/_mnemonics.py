"""Words on a screen that is cleared: shown to one person, typed by one person.

The alternate screen keeps no scrollback on terminals that follow xterm.  What Python makes of words
on the way cannot be wiped: do this on a machine that is switched off afterwards.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from custody.cli._ui import read_pin
from custody.crypto.secret import wipe
from custody.crypto.slip39 import (
    WORDS,
    Mnemonic,
    check_passphrase,
    missing_shares,
    unknown_word,
)
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.envelope import Statement
from custody.formats.recovery import RecoveryRecord, RecoveryShare
from custody.ops.recovery import HandedShare, check_share, next_share, rebuilt_seed

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_ENTER = "\x1b[?1049h" + _CLEAR
_LEAVE = _CLEAR + "\x1b[?1049l"
_LINE_BYTES = 4096
_MAX_BYTES = 1 << 16
_COLUMNS = 3
_ASKED_AGAIN = 3
#: How often a passphrase may be mistyped before everybody types his words again.
_PASSPHRASES = 3
#: Check ids of what a slip of the finger does to words that are all in the list.
_SLIPS = ("recovery.checksum", "recovery.length")

#: Says whose share some words are, or `Refused`.
Judge = Callable[[str], tuple[RecoveryShare, Mnemonic]]


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
        typed = ((at, screen.ask(f"word {at + 1}: ")) for at in asked)
        wrong = next((at for at, word in typed if word.lower() != words[at]), None)
        if wrong is None:
            return
        screen.ask(
            f"\r\nword {wrong + 1} is not the one that belongs on the paper\r\n"
            "mend the paper, or what you typed; press Enter to see them again: "
        )


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


def one_share(record: Statement[RecoveryRecord], words_fd: int | None) -> str:
    """Return one person's words: from a descriptor, or typed on a screen that is cleared.

    What is typed is checked, so that a slip costs a word and not all of them.
    """
    if words_fd is None:
        with sheet() as screen:
            return _mended_share(screen, partial(check_share, record)).words
    found = read_shares(words_fd)
    if len(found) != 1:
        raise Malformed(f"{len(found)} shares were given, and one is checked at a time")
    return found[0]


def _typed(screen: Sheet, record: Statement[RecoveryRecord], have: Sequence[Mnemonic]) -> Mnemonic:
    """Ask until a share is good: who mistyped a word has not come for nothing."""
    while True:
        try:
            return _mended_share(screen, partial(next_share, record, have))
        except Refused as error:
            screen.clear()
            screen.write(f"{_said(error)}\r\n\r\n")


def _mended_share(screen: Sheet, judge: Judge) -> Mnemonic:
    """Have a share typed, and its slips mended word by word, for as long as its holder finds any.

    What is wrong with it otherwise, or with what is on the paper, is `Refused`.
    """
    words = _ask_words(screen)
    while True:
        try:
            return judge(" ".join(words))[1]
        except Refused as error:
            if error.check not in _SLIPS or not _mend(screen, words, error):
                raise


def _mend(screen: Sheet, words: list[str], error: Refused) -> bool:
    """Show what was typed, to be held against the paper; False if it is all as on the paper."""
    screen.clear()
    screen.write(f"{_said(error)}\r\n\r\nyou typed:\r\n{_laid_out(words)}\r\n\r\n")
    while answer := screen.ask(
        "which is the first word that is not so on your paper? type its number\r\n"
        "(Enter if all are as on the paper): "
    ):
        if answer.isdecimal() and 1 <= int(answer) <= len(words):
            _retype(screen, words, int(answer) - 1)
            return True
    return False


def _retype(screen: Sheet, words: list[str], at: int) -> None:
    """Ask for one word again, and for nothing else; where words are too few, it was left out."""
    twice = " (Enter if it is there twice)" if len(words) > WORDS else ""
    typed = screen.ask(f"word {at + 1} on the paper{twice}: ").split()
    if typed or twice:
        words[at : at + (len(words) >= WORDS)] = typed
        _known_words(screen, words)


def _ask_words(screen: Sheet) -> list[str]:
    """Ask for words on as many lines as one likes; an empty line, or enough of them, ends them."""
    words: list[str] = []
    screen.write(
        f"type the {WORDS} words, one a line or with spaces between them; nobody else looks\r\n"
    )
    while len(words) < WORDS:
        line = screen.ask(f"word {len(words) + 1} and on: ").split()
        if not line:
            break
        words += line
        _known_words(screen, words)
    return words


def _known_words(screen: Sheet, words: list[str]) -> None:
    """Ask again for each word that is in no list, and for none before or after it."""
    while (at := unknown_word(words)) is not None:
        screen.write(f"word {at + 1} is no word of the list\r\n")
        words[at : at + 1] = screen.ask(f"word {at + 1} again (Enter to leave it out): ").split()


def _said(error: Refused) -> str:
    return f"{error.reason} ({error.hint})" if error.hint else error.reason


def passphrase_of(
    record: Statement[RecoveryRecord], shares: Sequence[str], say: Callable[[str], None]
) -> bytes:
    """Ask for the passphrase, again where it is wrong: nobody has typed his words for nothing.

    Nothing is asked where the key has none.  One that is wrong to the last, or shares that rebuild
    nothing, are for whoever uses them to refuse.
    """
    if not record.predicate.passphrase:
        return b""
    for left in reversed(range(_PASSPHRASES)):
        passphrase = b""
        try:
            passphrase = ask_passphrase(twice=False)
            with rebuilt_seed(record, shares, passphrase):
                return passphrase
        except (Refused, Malformed, Incomplete) as error:
            if not left or error.where:
                return passphrase
            say(f"{error.reason}: {left} more")
    raise AssertionError("internal: the last try returns")


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
