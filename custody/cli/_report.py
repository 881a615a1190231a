"""``report``: what an audit found, as one page to read, keep and print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._case import (
    AtOption,
    CaseArgument,
    ContentsOption,
    PolicyPinOption,
    TsaRootOption,
    audit,
    pinned,
    tsa_roots,
)
from custody.cli._history import remembered, retired
from custody.cli._home import HomeOption, PinFdOption, example, moment
from custody.cli._ui import EXIT_REFUSED, Screen

if TYPE_CHECKING:
    from custody.report.period import Period


def add_report(app: typer.Typer) -> None:
    """Add ``report`` to the auditor's commands."""
    app.command(
        name="report",
        epilog=example(
            "custody auditor report gpu-7.case --policy-pin 3f9c…e1 --out report.html",
            "custody auditor report ./archive --since 2027-01-01T00:00:00Z \\",
            "    --until 2027-02-01T00:00:00Z --out january.html",
        ),
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
    since: Annotated[
        str | None,
        typer.Option("--since", help="Of all collected files, from this time on.", metavar="TIME"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="And before this one  [default: now]", metavar="TIME"),
    ] = None,
    ceremony: Annotated[
        list[Path] | None,
        typer.Option(
            "--ceremony", help="Tell of this ceremony too; may be repeated.", metavar="DIR"
        ),
    ] = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
) -> None:
    """Judge a case as ``verify`` does, and write what was found as one HTML page.

    With --since the page is about a period: all releases of folders of collected files, and, where
    the environment's folder is given too, everything else that was stated: policies, people, hosts,
    bundles, recovery.

    The page needs no other file, no network and no script. It is written whatever the verdict;
    the exit code is 0 only if every check of every release holds.
    """
    from custody.cli._audit_words import say_what_fails
    from custody.ops.landing import check_absent, write_new_file
    from custody.report.html import render_report

    screen = Screen()
    check_absent(out)
    if since is not None or until is not None:
        if since is None or at is not None or contents:
            raise typer.BadParameter("a period has --since and --until alone", param_hint="--since")
        _period(screen, case, out, since, until, policy_pin, home, tsa_root, ceremony)
        return
    if ceremony:
        raise typer.BadParameter("is for a period: --since", param_hint="--ceremony")
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
    say_what_fails(screen, found)
    if not found.sound:
        raise typer.Exit(EXIT_REFUSED)


def _period(
    screen: Screen,
    case: Sequence[Path],
    out: Path,
    since: str,
    until: str | None,
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
    ceremonies: Sequence[Path] | None,
) -> None:
    """Write the page of a period."""
    from custody.ops.archive import read_archive
    from custody.ops.audit_ceremony import judge_ceremony
    from custody.ops.landing import write_new_file
    from custody.ops.overdue import overdue
    from custody.report.html import render_page
    from custody.report.period import period_of

    begin, end = moment(since, option="--since"), moment(until, option="--until")
    if end <= begin:
        raise typer.BadParameter("ends before it begins", param_hint="--until")
    pin, roots = pinned(screen, policy_pin, home), tsa_roots(tsa_root)
    found = read_archive(
        case,
        shelves=[],
        pin=pin,
        tsa_roots=roots,
        remembered=remembered(policy_pin, home),
        retired=retired(policy_pin, home, pin),
    )
    lingering = overdue(found, pin=pin, now=end)
    page = period_of(
        found,
        lingering,
        pin=pin,
        since=begin,
        until=end,
        # What it is tied to is the policy that came of it, and that is held against the pin.
        ceremonies=[judge_ceremony(folder, pin=None) for folder in ceremonies or ()],
        tsa_roots=roots,
    )
    write_new_file(out, render_page(page))
    screen.made(out)
    _say_faults(screen, page)
    screen.say("sound" if page.sound else "NOT SOUND")
    if not page.sound:
        raise typer.Exit(EXIT_REFUSED)


def _say_faults(screen: Screen, page: Period) -> None:
    """Say what of a period does not hold."""
    from custody.cli._words import plain

    for file in page.unopened:
        screen.say(f"unreadable {plain(file.name)}: {plain(file.reason)}")
    for row in page.unsound:
        fault = next(iter(row.faults), "its quorum was not complete")
        screen.say(f"NOT SOUND  {plain(row.file)}: {plain(row.release.host)}: {plain(fault)}")
    for ceremony in page.broken_ceremonies:
        title = ceremony.judged.script.title
        screen.say(f"NOT SOUND  ceremony {plain(title)}: {plain(ceremony.faults[0])}")
