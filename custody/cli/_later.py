"""Groups of commands, some of which are imported only when one of those is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer.core
import typer.main


def later(add: Callable[[typer.Typer], None]) -> type[typer.core.TyperGroup]:
    """Return a kind of group whose further commands ``add`` adds, when the first do not suffice.

    Help and completion list all of them, and so import all.
    """

    class Group(typer.core.TyperGroup):
        _first: Mapping[str, Any] = {}
        _all: dict[str, Any] | None = None

        @property
        def commands(self) -> dict[str, Any]:
            if self._all is None:
                rest = typer.Typer(add_completion=False, rich_markup_mode=None)
                # With a callback it is a group even of one command.
                rest.callback()(lambda: None)
                add(rest)
                group = typer.main.get_command(rest)
                self._all = {**getattr(group, "commands"), **self._first}  # noqa: B009
            return self._all

        @commands.setter
        def commands(self, found: Mapping[str, Any]) -> None:
            self._first, self._all = found, None

        # Any: the private types of typer's own click.
        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command, importing the rest only if it is none of the first."""
            return self._first.get(cmd_name) or super().get_command(ctx, cmd_name)

    return Group
