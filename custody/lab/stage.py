"""What the lab tells whoever watches.  The screen itself is the command line's (`custody.cli`)."""

from __future__ import annotations

from typing import Protocol

from custody.lab.actors import Ran


class Stage(Protocol):
    """Where a lab's story is told.  Every method may be called from one thread only."""

    @property
    def live(self) -> bool:
        """Whether a command may draw its progress on the watcher's terminal itself."""

    def scene(self, title: str) -> None:
        """Begin a step."""

    def say(self, text: str) -> None:
        """Say in one sentence who does what, and why."""

    def show(self, ran: Ran, *, also: tuple[str, ...] = (), lines: int = 6) -> None:
        """Show a command as it was typed and what it answered; ``also`` did the same.

        At most ``lines`` lines of the answer are shown.
        """

    def refused(self, ran: Ran) -> None:
        """Show a command that was refused, as it had to be, with its reason."""

    def result(self, text: str) -> None:
        """Say what came of it."""

    def working(self, doing: str) -> None:
        """Say what is being waited for, where that takes more than a moment."""
