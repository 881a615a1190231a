"""A ceremony's table with one terminal: whose token is in, what everybody reads, who says yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from custody.cli._shares import check_ready
from custody.cli._ui import Screen, read_pin
from custody.cli._wiring import list_objects, open_token
from custody.encoding import Digest, utc_now
from custody.errors import Unavailable
from custody.formats.ceremony import Seat, SplitRecovery
from custody.formats.envelope import Statement
from custody.formats.policy import ShareKey
from custody.formats.policy_text import parse_quorum
from custody.formats.recovery import RecoveryRecord
from custody.keys.api import PinReader, Token
from custody.keys.audit import HeldObject
from custody.keys.pin import read_pin_source
from custody.log.storage import Store
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.ops.spoken import spoken
from custody.ops.table import HandedOut


class TerminalTable:
    """A table with one terminal.  One token is open at a time; its PIN is forgotten with it."""

    def __init__(
        self,
        screen: Screen,
        *,
        asks: bool,
        homes: Callable[[Seat], Home],
        uris: Mapping[str, str],
        pin_fd: int | None = None,
        officers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take how people's tokens are named here, with what PINs are read from.

        ``officers`` are the files with the PINs of tokens' security officers.
        """
        self._screen = screen
        self._asks = asks
        self._homes = homes
        self._uris = uris
        self._pin_fd = pin_fd
        self._officers = officers
        self._open: tuple[str, Token] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def asks(self) -> bool:
        """Whether people are asked."""
        return self._asks

    def token(self, seat: Seat) -> Token:
        """Return somebody's token, opened."""
        if self._open is not None and self._open[0] == seat.name:
            return self._open[1]
        self._stack.close()
        self._open = None
        token = self._stack.enter_context(self._opened(seat))
        self._open = seat.name, token
        return token

    def _opened(self, seat: Seat) -> Token:
        """Open a token; with one reader for all, somebody has to put it in first."""
        while True:
            try:
                return open_token(self.uri(seat), pin_fd=self._pin_fd)
            except Unavailable as error:
                if not self._asks:
                    raise
                self._screen.say(f"{error}")
            self.confirm(f"put in the token of {seat.name}; try again?")

    def objects(self, seat: Seat) -> tuple[HeldObject, ...]:
        """List all that lies in somebody's token."""
        return list_objects(self.uri(seat), self.token(seat))

    def uri(self, seat: Seat) -> str:
        """Return how his token is named here."""
        return self._uris[seat.name]

    def home(self, seat: Seat) -> Home:
        """Return his home."""
        return self._homes(seat)

    def show(self, lines: Sequence[str]) -> None:
        """Show what everybody is to read."""
        for line in lines:
            self._screen.say(line)

    def speak(self, what: str, digest: Digest) -> None:
        """Show a digest, and where people are there its words."""
        if not self._asks:
            self._screen.say(f"  {what}: {digest}")
            return
        self._screen.say(f"  {what}, to read aloud:")
        for line in spoken(digest):
            self._screen.say(f"    {line}")

    def confirm(self, question: str) -> None:
        """Ask the people there."""
        self._screen.confirm(question, yes=not self._asks)

    def split(
        self,
        step: SplitRecovery,
        *,
        environment: str,
        token: Token,
        signer: Signer,
        recipients: Mapping[str, ShareKey],
    ) -> HandedOut:
        """Make a recovery key, seal some shares, and show everybody else his words."""
        check_ready()
        from custody.cli import _mnemonics as paper
        from custody.ops import recovery as ops
        from custody.ops.sealed_share import seal_shares

        order = ops.RecoveryOrder(
            environment=environment,
            epoch=step.epoch,
            suite=step.suite,
            among=parse_quorum(step.among),
            passphrase=paper.ask_passphrase(twice=True) if step.passphrase else b"",
        )
        made = ops.make_recovery(order, signer=signer, token_random=token.random, now=self.now())
        sealed, written = seal_shares(made, recipients)
        if written:
            paper.hand_out(written)
        return HandedOut(made.statement, sealed)

    def gather(
        self, record: Statement[RecoveryRecord], opened: Sequence[str]
    ) -> tuple[tuple[str, ...], bytes]:
        """Have people type words until there are enough."""
        check_ready()
        from custody.cli import _mnemonics as paper

        shares = paper.gather(record, None, opened)
        return shares, paper.passphrase_of(record, shares, self._screen.say)

    def officer_pin(self, seat: Seat) -> PinReader:
        """Have the SO type his PIN, or read it from the file that was named."""
        source = self._officers.get(seat.name)
        return read_pin if source is None else lambda _prompt, /: read_pin_source(source)

    def store(self, folder: Path) -> Store:
        """Open a folder as the store of a log."""
        from custody.transports.api import open_store

        return open_store(str(folder))

    def now(self) -> datetime:
        """Return the machine's clock."""
        return utc_now()
