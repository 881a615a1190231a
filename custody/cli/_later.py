"""Groups of commands: each is imported only when it is asked for, and its values read plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import typer.core
import typer.main

from custody.cli._plain import read_plainly

_BEGIN = ("init", "enroll", "trust")


class Verbs(NamedTuple):
    """Names of commands, and what imports exactly those and adds them to an app."""

    names: tuple[str, ...]
    add: Callable[[typer.Typer], None]

    def commands(self) -> dict[str, Any]:
        """Import them."""
        some = typer.Typer(add_completion=False, rich_markup_mode=None)
        # With a callback it is a group even of one command.
        some.callback()(lambda: None)
        self.add(some)
        return dict(getattr(typer.main.get_command(some), "commands"))  # noqa: B009


class Group(typer.core.TyperGroup):
    """A group whose commands do not wait for what checks values that need no checking."""

    #: What is imported when it is asked for.
    verbs: tuple[Verbs, ...] = ()

    # Any: the private types of typer's own click.
    def get_params(self, ctx: Any) -> list[Any]:
        """Return its options."""
        return read_plainly(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of its commands: first what everybody begins with."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _BEGIN.index(name) if name in _BEGIN else len(_BEGIN))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was asked for, to run it."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            # With the group's own context: all that is asked of it is what help is called.
            read_plainly(command.get_params(ctx))
        return name, command, rest


def later(*further: Verbs) -> type[Group]:
    """Return a kind of group that has further commands, and imports of them what is asked for.

    Help and completion list all of them, and so import all.
    """

    class Later(Group):
        verbs = further
        _first: Mapping[str, Any] = {}
        _all: dict[str, Any] | None = None

        @property
        def commands(self) -> dict[str, Any]:
            if self._all is None:
                rest = {name: command for v in self.verbs for name, command in v.commands().items()}
                self._all = {**rest, **self._first}
            return self._all

        @commands.setter
        def commands(self, found: Mapping[str, Any]) -> None:
            self._first, self._all = found, None

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command, importing no others."""
            if self._all is None and cmd_name not in self._first:
                for some in self.verbs:
                    if cmd_name in some.names:
                        return some.commands().get(cmd_name)
            return self._first.get(cmd_name) or super().get_command(ctx, cmd_name)

    return Later
