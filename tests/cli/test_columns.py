"""Tables on terminals of any width, and output in any encoding."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.cli._columns import fit

URI = "pkcs11:token=alice;serial=0123456789abcdef;model=SoftHSM%20v2?module-name=softhsm2"
TIME = "2026-11-20T19:29:43Z"
ROW = (URI, "SoftHSM v2", "opened-and-burned", TIME, "said in several words, and in some more")
_DRAW = (
    "from custody.cli._ui import Screen;"
    f" Screen().table(('token', 'model', 'outcome', 'judged at', 'why'), [{ROW!r}, {ROW!r}])"
)


@pytest.fixture
def drawn() -> Callable[[int], str]:
    """Draw a table on a terminal so wide."""

    def draw(width: int) -> str:
        keyboard, screen = pty.openpty()
        environment = {**os.environ, "COLUMNS": str(width), "TERM": "dumb"}
        child = subprocess.Popen(
            [sys.executable, "-c", _DRAW], stdin=screen, stdout=screen, env=environment
        )
        os.close(screen)
        text = b""
        with os.fdopen(keyboard, "rb", buffering=0) as terminal:
            while True:
                try:
                    piece = terminal.read(4096)
                except OSError:
                    break
                if not piece:
                    break
                text += piece
        assert 0 == child.wait()
        return text.decode()

    return draw


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160, 250])
def test_what_is_copied_is_never_broken(drawn: Callable[[int], str], width: int) -> None:
    """A URI, an outcome and a time stand in one piece on a terminal of any width."""
    shown = drawn(width)
    for whole in (URI, "opened-and-burned", TIME):
        assert 2 == len(re.findall(rf"(?<!\S){re.escape(whole)}(?!\S)", shown)), shown
    assert "judged at" in shown
    assert (width >= 160) == (f"{URI}  SoftHSM v2  opened-and-burned  {TIME}  said in" in shown)


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)).map(sorted), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_columns_have_room_for_their_words(columns: list[list[int]], room: int) -> None:
    """No column is narrower than its longest word, or wider than its longest cell."""
    least, wanted = [low for low, _ in columns], [high for _, high in columns]
    widths = fit(wanted, least, room)
    needed = sum(wanted) + 2 * (len(columns) - 1)
    if widths is None:
        assert room < needed
        return
    assert all(low <= width <= high for low, width, high in zip(least, widths, wanted, strict=True))
    assert sum(widths) + 2 * (len(columns) - 1) <= room
    assert needed > room or list(widths) == wanted


SAYS = "a… \N{EURO SIGN} \N{GRINNING FACE} b"
_SAY = (
    "import sys; from custody.cli._streams import open_streams; open_streams();"
    " from custody.cli._ui import Screen; s = Screen(as_json='json' in sys.argv);"
    f" s.say({SAYS!r}); s.result({{'text': {SAYS!r}}}, lambda: s.show({SAYS!r}));"
    " s.made('end'); sys.exit(7)"
)


def said(encoding: str, *words: str) -> tuple[bytes, bytes]:
    """Say something in an encoding; return stdout and stderr."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", _SAY, *words], capture_output=True, env=environment, check=False
    )
    assert 7 == done.returncode, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r", "ascii", "utf-8", "utf-16"])
def test_it_speaks_in_every_encoding(encoding: str) -> None:
    """What an encoding lacks is written in its place, and nothing after it is lost."""
    for stream in said(encoding):
        assert b"b" in stream
    assert b"e\x00n\x00d" in said(encoding)[0] or b"end" in said(encoding)[0]


@pytest.mark.parametrize("encoding", ["latin-1", "koi8-r", "ascii", "utf-8"])
def test_json_says_the_same_in_every_encoding(encoding: str) -> None:
    """A program reads the very same text, by escapes where there is no other way."""
    out, err = said(encoding, "json")
    # typer writes UTF-8 where a stream can have nothing but ASCII.
    read = "utf-8" if encoding == "ascii" else encoding
    assert SAYS == json.loads(out.decode(read).splitlines()[0])["text"]
    assert {"event": "message", "text": SAYS} == json.loads(err.decode(read))


def test_latin_1_has_dots_for_an_ellipsis() -> None:
    """The sign that almost every digest ends with is readable where it cannot be written."""
    assert said("latin-1")[0].startswith(b"a... \\u20ac ")


def test_the_program_itself_speaks_latin_1() -> None:
    """`custody` begins by making its streams take everything: help has dots in its example."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    words = ("-m", "custody", "auditor", "verify", "--help")
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, env=environment, check=False
    )
    assert 0 == done.returncode, done.stderr
    assert b"--policy-pin 3f9c...e1" in done.stdout
