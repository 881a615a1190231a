"""``report``: what an audit found, as one page to read, keep and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._case import (
    AtOption,
    CaseArgument,
    ContentsOption,
    PolicyPinOption,
    TsaRootOption,
    audit,
)
from custody.cli._home import HomeOption, PinFdOption, example
from custody.cli._ui import EXIT_REFUSED, Screen


def add_report(app: typer.Typer) -> None:
    """Add ``report`` to the auditor's commands."""
    app.command(
        name="report",
        epilog=example("custody auditor report ./case --policy-pin 3f9c…e1 --out report.html"),
    )(report)


def report(
    case: CaseArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the page.", metavar="FILE.html")
    ],
    policy_pin: PolicyPinOption = None,
    at: AtOption = None,
    contents: ContentsOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
) -> None:
    """Judge a case as ``verify`` does, and write what was found as one HTML page.

    The page needs no other file, no network and no script. It is written whatever the verdict;
    the exit code is 0 only if every check of every release holds.
    """
    from custody.ops.landing import check_absent, write_new_file
    from custody.report.html import render_report

    screen = Screen()
    check_absent(out)
    found = audit(
        screen,
        case,
        policy_pin=policy_pin,
        at=at,
        contents=contents,
        home=home,
        pin_fd=pin_fd,
        tsa_root=tsa_root,
    )
    write_new_file(out, render_report(found))
    screen.made(out)
    screen.say("sound" if found.sound else "NOT SOUND")
    if not found.sound:
        raise typer.Exit(EXIT_REFUSED)
