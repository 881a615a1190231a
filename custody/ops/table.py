"""The table a ceremony is held at: tokens, homes, a screen, the people around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from custody.encoding import Digest
from custody.formats.ceremony import Seat, SplitRecovery
from custody.formats.envelope import Statement
from custody.formats.policy import ShareKey
from custody.formats.recovery import RecoveryRecord
from custody.keys.api import PinReader, Token
from custody.keys.audit import HeldObject
from custody.log.storage import Store
from custody.ops.home import Home
from custody.ops.keys import Signer

if TYPE_CHECKING:  # SLIP-0039 is an extra
    from custody.ops.sealed_share import SealedFile


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A recovery key after its shares were handed out: the record (``.dsse``), what was sealed."""

    statement: bytes
    sealed: tuple[SealedFile, ...]


class Table(Protocol):
    """What a ceremony asks of the room.  Whatever goes wrong is an error of `custody.errors`."""

    @property
    def asks(self) -> bool:
        """Whether `confirm` asks people; False where who runs the command answered beforehand."""

    def token(self, seat: Seat) -> Token:
        """Return somebody's token, opened; whatever was opened for others is closed."""

    def objects(self, seat: Seat) -> tuple[HeldObject, ...]:
        """List all that lies in somebody's token."""

    def uri(self, seat: Seat) -> str:
        """Return how somebody's home is to name his token, with what his PIN is read from."""

    def home(self, seat: Seat) -> Home:
        """Return somebody's private state."""

    def show(self, lines: Sequence[str]) -> None:
        """Show what everybody is to read."""

    def speak(self, what: str, digest: Digest) -> None:
        """Show a digest that one reads aloud and the others compare."""

    def confirm(self, question: str) -> None:
        """Ask the people there; a no is `Refused`."""

    def split(
        self,
        step: SplitRecovery,
        *,
        environment: str,
        token: Token,
        signer: Signer,
        recipients: Mapping[str, ShareKey],
    ) -> HandedOut:
        """Make a recovery key, seal shares to ``recipients``, hand the others out on paper."""

    def gather(
        self, record: Statement[RecoveryRecord], opened: Sequence[str]
    ) -> tuple[tuple[str, ...], bytes]:
        """Return enough shares, typed beside those that tokens opened, and the passphrase."""

    def officer_pin(self, seat: Seat) -> PinReader:
        """Return how the PIN of a token's security officer (SO) is come by."""

    def store(self, folder: Path) -> Store:
        """Open a folder as the store of a log."""

    def now(self) -> datetime:
        """Return the machine's clock, in whole seconds UTC."""
