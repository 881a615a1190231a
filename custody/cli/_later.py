"""Groups of commands: each is imported only when it is asked for.

Its values are read plainly, and named in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import typer.core
import typer.main

from custody.cli._help import name_values, spoken_help
from custody.cli._plain import read_plainly

_BEGIN = ("init", "enroll", "trust")
#: No first sentence is longer: what is cut off is what one would have asked for.
_WHOLE = 400


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
        return _made_ready(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of its commands: first what everybody begins with."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _BEGIN.index(name) if name in _BEGIN else len(_BEGIN))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was asked for, to run it."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            # With the group's own context: all that is asked of it is what help is called.
            _made_ready(command.get_params(ctx))
            command.help = spoken_help(command.help)
        return name, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List its commands, each with the whole first sentence of its help."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, spoken_help(command.get_short_help_str(_WHOLE)))
            for name, command in found
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _made_ready(params: list[Any]) -> list[Any]:
    name_values(params)
    return read_plainly(params)


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
