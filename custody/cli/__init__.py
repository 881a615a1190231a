"""The command line: one role, one module; nothing of a role is imported before it is used."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from custody import __version__
from custody.cli._later import Group
from custody.cli._streams import open_streams

#: Every role and tool, in the order of a release.  A module ``custody.cli.NAME`` has an ``app``.
ROLES = {
    "custodian": "Keep the policy and the certificates of an environment.",
    "enroller": "Vouch for hosts and their boot states.",
    "publisher": "Seal models for an environment.",
    "officer": "Review and approve releases.",
    "host": "Enrol a machine, ask for models, open them.",
    "auditor": "Verify what happened, with no hardware.",
    "log": "Keep a public log of statements, follow one, witness one.",
    "token": "See what a token is, what it can do and what it holds.",
    "lab": "Run the whole cast on one machine.",
    "demo": "Watch one whole release.",
}


_STOPPED = 130


class Roles(Group):
    """Lists the roles without importing them, so that help and completion are quick."""

    _listing = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, text in ROLES.items():
            self.add_command(typer.core.TyperCommand(name, help=text))

    def get_command(  # type: ignore[override]
        self, ctx: typer.Context, cmd_name: str
    ) -> typer.core.TyperCommand | typer.core.TyperGroup | None:
        """Import a role to run it, or only name it while roles are being listed."""
        if cmd_name not in ROLES:
            return None
        if self._listing:
            return super().get_command(ctx, cmd_name)  # type: ignore[return-value]
        module = importlib.import_module(f"custody.cli.{cmd_name}")
        return typer.main.get_command(module.app)  # type: ignore[return-value]

    # Any: the private types of typer's own click.
    def format_commands(self, *args: Any) -> None:
        """Write the list of roles in the help."""
        self._list(lambda: super(Roles, self).format_commands(*args))

    def shell_complete(self, *args: Any) -> Any:
        """Complete the name of a role."""
        return self._list(lambda: super(Roles, self).shell_complete(*args))

    def _list(self, work: Callable[[], Any]) -> Any:
        self._listing = True
        try:
            return work()
        finally:
            self._listing = False


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"custody {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Roles,
    name="custody",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Carry model weights from the people who trained them to the machines that serve them,"
    " so that nobody can release them alone and anybody can prove afterwards who did.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  custody demo\n  custody officer review --help",
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run one command.

    Exit codes: 0 done, 1 refused or malformed, 2 usage, 3 unavailable, 4 incomplete.
    """
    # Importing makes many objects and no garbage.  Looking for it a hundred times, and once more
    # at the end in what goes away anyway, takes a fifth of a short command.
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)
    open_streams()
    try:
        code = typer.main.get_command(app)(prog_name="custody", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the edge of the program
        from custody.cli import _ui

        code = _ui.explain(error, as_json="--json" in sys.argv)
    else:
        if code == _STOPPED:
            # The number is all that typer makes of an interrupt.
            from custody.cli import _ui

            _ui.explain(KeyboardInterrupt(), as_json="--json" in sys.argv)
    raise SystemExit(code if isinstance(code, int) else 0)
