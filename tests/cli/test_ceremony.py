"""What people at a table are asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from custody.cli import _table as room
from custody.cli._table import TerminalTable
from custody.cli._ui import Screen
from custody.errors import Refused, Unavailable
from custody.formats.ceremony import Seat
from custody.ops.home import Home

SEAT = Seat(name="alice", role="officer", token="pkcs11:token=alice?module-name=softhsm2")


class Asked(Screen):
    """A screen whose people say yes, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.questions: list[str] = []

    def confirm(self, question: str, *, yes: bool) -> None:
        self.questions.append(question)
        if len(self.questions) > self.times:
            raise Refused("not confirmed", check="person.confirm")


def _table(screen: Screen, tmp_path: Path, *, asks: bool) -> TerminalTable:
    return TerminalTable(
        screen, asks=asks, homes=lambda _: Home(tmp_path / "home"), uris={"alice": SEAT.token}
    )


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a reader that is empty twice, then holds the token; what was asked of it."""
    asked: list[str] = []

    def open_token(uri: str, *, pin_fd: int | None) -> AbstractContextManager[Any]:
        asked.append(uri)
        if len(asked) < 3:
            raise Unavailable("no token matches the key URI", where="token alice")
        return nullcontext("the token")

    monkeypatch.setattr(room, "open_token", open_token)
    return asked


def test_one_reader_for_all_is_waited_for(reader: list[str], tmp_path: Path) -> None:
    """A token that is not in the reader is asked for until it is, and then stays open."""
    screen = Asked(2)
    with _table(screen, tmp_path, asks=True) as table:
        table.token(SEAT)
        table.token(SEAT)
    assert 3 == len(reader)
    assert 2 * ["put in the token of alice; try again?"] == screen.questions


def test_who_has_not_the_token_may_stop(reader: list[str], tmp_path: Path) -> None:
    """A no ends it, and a command that asks nobody does not wait."""
    with (
        pytest.raises(Refused, match="not confirmed"),
        _table(Asked(1), tmp_path, asks=True) as table,
    ):
        table.token(SEAT)
    reader.clear()
    with (
        pytest.raises(Unavailable, match="no token matches"),
        _table(Asked(9), tmp_path, asks=False) as table,
    ):
        table.token(SEAT)
    assert 1 == len(reader)
