"""Where the lab tells its story: drawn on a terminal, plain lines where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from custody.lab.actors import Ran

_MARGIN = 3
_ANSWER_MARGIN = 5


class Narrator:
    """Tells every step: who does what, the command as it was typed, what it answered."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._scenes = 0
        self._status: Status | None = None
        marks = ("✓", "✗", "…") if "utf" in self.console.encoding.lower() else ("ok", "NO", "...")
        self._yes, self._no, self._more = marks

    @property
    def live(self) -> bool:
        """Whether a command may draw its progress on this terminal itself."""
        from sys import stderr

        return self.console.is_terminal and stderr.isatty()

    def title(self, text: str) -> None:
        """Say what this is."""
        self._line(Text(text, style="bold"), margin=0)

    def scene(self, title: str) -> None:
        """Begin a step."""
        self.quiet()
        self._scenes += 1
        self.console.print()
        self._line(Text(f"{self._scenes:2} {title}", style="bold cyan"), margin=0)

    def say(self, text: str) -> None:
        """Say who does what."""
        self.quiet()
        self._line(Text(text), margin=_MARGIN)

    def show(self, ran: Ran, *, also: tuple[str, ...] = (), lines: int = 6) -> None:
        """Show a command and what it answered."""
        self._command(ran)
        answer = [line.rstrip() for line in (ran.output or ran.talk).strip().splitlines()]
        for line in answer[:lines]:
            self._line(Text(line), margin=_ANSWER_MARGIN)
        rest = [f"{len(answer) - lines} more lines"] if len(answer) > lines else []
        rest += [f"the same by {', '.join(also)}"] if also else []
        if rest:
            text = f"{self._more} and {', and '.join(rest)}"
            self._line(Text(text, style="dim"), margin=_ANSWER_MARGIN)

    def refused(self, ran: Ran) -> None:
        """Show a command that was refused, as it had to be."""
        self._command(ran)
        reasons = [ran.reason] if ran.reason else (ran.output or ran.talk).strip().splitlines()
        for reason in reasons:
            self._led(Text(self._no, style="bold red"), Text(reason, style="red"))

    def result(self, text: str) -> None:
        """Say what came of it."""
        self.quiet()
        self._led(Text(self._yes, style="bold green"), Text(text))

    def working(self, doing: str) -> None:
        """Turn a wheel until something else is said."""
        self.quiet()
        if self.console.is_terminal:
            self._status = self.console.status(Text(doing, style="dim"))
            self._status.start()

    def quiet(self) -> None:
        """Stop the wheel."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def places(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show names and what they stand for, aligned."""
        self.quiet()
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            self._led(Text(f"{name:<{width}} "), Text(text))

    def copyable(self, text: str) -> None:
        """Show a command to be copied: never broken, however narrow the screen is."""
        self.quiet()
        self.console.print(Text(f"{' ' * _MARGIN}{text}", style="bold"), soft_wrap=True)

    def _command(self, ran: Ran) -> None:
        self.quiet()
        self._led(Text(f"{ran.actor}$", style="dim bold"), Text(ran.command, style="dim"))

    def _led(self, lead: Text, text: Text) -> None:
        """Write ``text`` behind ``lead``, and go on under itself where it is long."""
        if not self.console.is_terminal:
            self._line(Text.assemble(lead, " ", text), margin=_MARGIN)
            return
        grid = Table.grid(padding=(0, 1), pad_edge=False)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(lead, text)
        self.console.print(Padding(grid, (0, 0, 0, _MARGIN)))

    def _line(self, text: Text, *, margin: int) -> None:
        if self.console.is_terminal:
            self.console.print(Padding(text, (0, 0, 0, margin)))
        else:
            self.console.print(Text(" " * margin) + text, soft_wrap=True)


class Brief(Narrator):
    """Says only which step is being done and what came of it."""

    def scene(self, title: str) -> None:
        """Name a step while it is being done."""
        self.working(title.lower())

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, ran: Ran, *, also: tuple[str, ...] = (), lines: int = 6) -> None:
        """Say nothing."""
