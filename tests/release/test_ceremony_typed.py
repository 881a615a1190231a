"""A ceremony at a terminal, whose people write words down and type them: with real tokens."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from custody.errors import Unavailable
from custody.formats.transcript import Begun, Done, decode_transcript
from custody.lab.softhsm import create_store, find_library
from tests.docs.terminal import Paper, Shown, enter, environment, write_program
from tests.release.test_ceremonies import FOLDER, PIN, STEPS, Desk

pytestmark = pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")

PASSPHRASE = "correct horse"
_WORD = re.compile(r"(?:word \d+ and on|\(Enter [^)]*\)): $")
_PASSPHRASE = re.compile(r"(?:passphrase of the recovery key|the same again)[^\n]*: $")
_RECOVERY = 'do = "recovery"; by = "ida"; among = "2 of (ida, cas, cyd)"'
_WRAPPING = 'do = "wrapping-key"; by = "ida"'
_COMMAND = f"custody custodian ceremony ceremony.toml --homes homes --out {FOLDER}"

Lines = Callable[[list[list[str]]], Iterator[str]]


class Typist(Paper):
    """People who type lines, which follow from the words that they wrote down."""

    def __init__(self, lines: Lines, *passphrases: str) -> None:
        super().__init__()
        self._lines = lines
        self._typed: Iterator[str] | None = None
        self._passphrases = list(passphrases)

    def answer(self, text: str) -> str | None:
        """Type the next line where words or a passphrase are asked for."""
        if _PASSPHRASE.search(text):
            return self._passphrases.pop(0)
        if _WORD.search(text):
            self._typed = self._typed or self._lines(self.shares)
            return next(self._typed)
        return super().answer(text)


@pytest.fixture
def place(tmp_path: Path) -> Desk:
    """A table with two custodians' tokens, and a program."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    desk = Desk(tmp_path, create_store(tmp_path / "store"))
    desk.bring("ida", "custodian")
    desk.bring("cas", "custodian")
    write_program(tmp_path / "bin")
    return desk


def write(desk: Desk, recovery: str = _RECOVERY, wrapping: str = _WRAPPING) -> None:
    """Write a script that makes a recovery key and, by its shares, a wrapping key."""
    enrol = (f'do = "enrol"; who = "{name}"; suite = "P256"' for name in ("ida", "cas"))
    desk.write(STEPS[0], *enrol, recovery, wrapping)


def hold(desk: Desk, paper: Paper, term: str = "xterm") -> Shown:
    """Hold the ceremony at a terminal; every question is answered yes."""
    more = {"TERM": term, **desk.store.environment}
    env = environment(desk.folder, desk.folder / "bin", more)
    return enter(_COMMAND, directory=desk.folder, env=env, pin=PIN.decode(), paper=paper)


def nothing_kept(desk: Desk, shown: Shown, paper: Paper) -> None:
    """No share's words stay on the screen, nor in any file but those of tokens."""
    kept = [path for path in desk.folder.rglob("*") if path.is_file() and "store" not in path.parts]
    for share in paper.shares:
        for text in (shown.text, *(path.read_bytes().decode("latin-1") for path in kept)):
            assert " ".join(share[3:6]) not in text


def last(desk: Desk) -> Done:
    """Return what the last step is on record with."""
    return desk.steps()[-1]


def test_words_are_typed_one_at_a_time(place: Desk) -> None:
    """One a line, a slip of the finger mended where it was made, and a passphrase tried again."""

    def lines(shares: list[list[str]]) -> Iterator[str]:
        first, second, _ = shares
        yield from first[:7]
        yield "zebre"
        yield first[7]
        yield f"{first[8]} nowords {first[9]} ackademic {first[11]}"
        yield ""
        yield first[10]
        yield from first[12:]
        yield " ".join(second).upper()

    paper = Typist(lines, PASSPHRASE, PASSPHRASE, "wrong", PASSPHRASE)
    write(place, _RECOVERY + "; passphrase = true")
    shown = hold(place, paper)
    assert 0 == shown.code, shown.text
    assert "the passphrase is wrong: 2 more" in shown.text
    assert ("by the shares of ida, typed, cas, typed",) == last(place).said
    assert "sound" in place.verify().splitlines()
    nothing_kept(place, shown, paper)


def test_one_share_is_typed_beside_one_that_a_token_opens(place: Desk) -> None:
    """A holder with paper and a holder with a token make the key together."""

    def lines(shares: list[list[str]]) -> Iterator[str]:
        yield " ".join(shares[1])

    paper = Typist(lines)
    write(place, f'{_RECOVERY}; seal_to = ["ida"]', f'{_WRAPPING}; opened = ["ida"]')
    shown = hold(place, paper)
    assert 0 == shown.code, shown.text
    assert ("by the shares of ida, by his token, cyd, typed",) == last(place).said
    assert 2 == len(paper.shares)
    assert "sound" in place.verify().splitlines()
    nothing_kept(place, shown, paper)


def test_a_share_that_does_not_do_is_asked_for_again(place: Desk) -> None:
    """A share a second time, one with a wrong word, one that is too short: then the right one."""

    def lines(shares: list[list[str]]) -> Iterator[str]:
        first, second, _ = (" ".join(share) for share in shares)
        words = list(shares[1])
        words[11] = "academic" if words[11] != "academic" else "acid"
        yield from (first, first, " ".join(words), "", *(" ".join(shares[1][:20]), "", ""), second)

    paper = Typist(lines)
    write(place)
    shown = hold(place, paper)
    assert 0 == shown.code, shown.text
    assert ("by the shares of ida, typed, cas, typed",) == last(place).said
    nothing_kept(place, shown, paper)


def test_who_leaves_while_words_are_typed_goes_on_later(place: Desk) -> None:
    """Interrupted between two shares, the same command asks for both again; nothing was kept."""

    def stop(shares: list[list[str]]) -> Iterator[str]:
        yield " ".join(shares[0])
        yield "\x03"

    write(place)
    paper = Typist(stop)
    shown = hold(place, paper)
    assert 0 != shown.code
    assert "recovery" == last(place).do
    nothing_kept(place, shown, paper)

    def lines(_: list[list[str]]) -> Iterator[str]:
        yield from (" ".join(share) for share in (paper.shares[2], paper.shares[0]))

    again = hold(place, Typist(lines))
    assert 0 == again.code, again.text
    assert ("by the shares of cyd, typed, ida, typed",) == last(place).said
    records = decode_transcript(place.transcript.read_bytes())
    begun = [x.record.event.step for x in records if isinstance(x.record.event, Begun)]
    assert [1, 2, 3, 4, 5, 5] == begun
    assert "sound" in place.verify().splitlines()
    nothing_kept(place, again, paper)


def test_words_that_could_not_be_shown_stop_a_ceremony_at_its_beginning(place: Desk) -> None:
    """Without a terminal that can be cleared not one key is made."""
    write(place)
    shown = hold(place, Paper(), "dumb")
    assert 3 == shown.code
    assert "a terminal that can be cleared" in shown.text
    assert not (place.folder / FOLDER).exists()
    assert [] == place.objects("ida")
