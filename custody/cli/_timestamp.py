"""``timestamp``: have an authority say by when a statement, or a log's head, was there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._case import TsaRootOption, tsa_roots
from custody.cli._home import JsonOption, OutOption, example
from custody.cli._ui import Screen
from custody.cli._words import plain
from custody.encoding import format_time


def add_timestamp(app: typer.Typer) -> None:
    """Add ``timestamp`` to the auditor's commands."""
    app.command(
        epilog=example(
            "custody auditor timestamp receipt.dsse --out receipt.tsq",
            "custody auditor timestamp receipt.dsse --response answer.tsr \\",
            "    --tsa-root tsa.pem --out receipt.tsr",
        )
    )(timestamp)


def timestamp(
    file: Annotated[
        Path,
        typer.Argument(help="A statement, a .tlog-proof, or a checkpoint.", metavar="FILE"),
    ],
    out: OutOption,
    response: Annotated[
        Path | None,
        typer.Option("--response", help="The authority's answer (RFC 3161).", metavar="FILE"),
    ] = None,
    tsa_root: TsaRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a timestamp request; or, with --response, check the answer and keep it.

    Nothing is sent: carry the request to the authority, and its answer back. One over a receipt
    dates everything that led to it. Put the .tsr that is kept beside the other files of the case.
    """
    from custody.ops import timestamps
    from custody.ops.landing import check_absent, write_new_file

    screen = Screen(as_json=as_json)
    check_absent(out)
    if response is None:
        if tsa_root:
            raise typer.BadParameter("judges an answer: --response", param_hint="--tsa-root")
        write_new_file(out, timestamps.ask(file))
        screen.made(out)
        return
    if out.suffix != ".tsr":
        raise typer.BadParameter("a name that ends in .tsr", param_hint="--out")
    if not tsa_root:
        raise typer.BadParameter("whose answer is it?", param_hint="--tsa-root")
    data, stamp = timestamps.take(file, response, tsa_roots=tsa_roots(tsa_root))
    write_new_file(out, data)
    when = format_time(stamp.at)
    screen.result(
        {"file": str(out), "at": when, "by": stamp.by},
        lambda: screen.show(f"{out}: there by {when}, {plain(stamp.by)}"),
    )
