"""``overdue``: what lingers in an archive, and what its log has and no file shows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._archive import ArchiveArgument, judged
from custody.cli._case import PolicyPinOption, TsaRootOption, pinned
from custody.cli._history import linked
from custody.cli._home import HomeOption, JsonOption, example, moment
from custody.cli._ui import Screen
from custody.encoding import Record, format_time

if TYPE_CHECKING:
    from custody.formats.logentry import LogEntry

AtOption = Annotated[
    str | None,
    typer.Option("--at", help="Judge as of this time  [default: now]", metavar="TIME"),
]
LogOption = Annotated[
    str | None,
    typer.Option("--log", help="Name also what this log has and no file shows.", metavar="LOG"),
]


class OverdueLine(Record, frozen=True):
    """What ``overdue`` shows."""

    kind: str
    since: datetime
    due: bool
    who: str
    what: str
    do: str
    digest: str | None


def add_overdue(app: typer.Typer) -> None:
    """Add ``overdue``."""
    app.command(
        epilog=example(
            "custody auditor overdue ./archive",
            "custody auditor overdue s3://evidence/custody --log https://log.example.com/models",
        )
    )(overdue)


def overdue(
    archive: ArchiveArgument,
    at: AtOption = None,
    log: LogOption = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what lingers: requests without an end, keys not burnt or kept, bundles that had their
    time, policies, lists and certificates that end within thirty days.

    Exit code 4 if anything is late already.
    """
    from custody.cli._words import plain
    from custody.ops.overdue import overdue as find_overdue
    from custody.ops.overdue import unshown

    screen = Screen(as_json=as_json)
    pin, now = pinned(screen, policy_pin, home), moment(at, option="--at")
    found = judged(screen, archive, pin, policy_pin, home, tsa_root)
    entries: Iterable[tuple[int, LogEntry]] = ()
    if log is not None:
        found, entries = linked(found, log, pin, home)
    late = [*find_overdue(found, pin=pin, now=now), *unshown(found, entries, now=now)]
    rows = [
        OverdueLine(
            kind=each.kind,
            since=each.since,
            due=each.is_due(now),
            who=each.who,
            what=each.what,
            do=each.do,
            digest=each.digest,
        )
        for each in late
    ]

    def words() -> None:
        if not rows:
            screen.show("nothing is late, and nothing ends within thirty days")
        for row in rows:
            state = "late" if row.due else "soon"
            screen.show(f"{state}  {format_time(row.since)}  {row.kind}  {plain(row.who)}")
            screen.show(f"    {plain(row.what)}")
            screen.show(f"    {plain(row.do)}")

    screen.result(rows, words)
    if any(row.due for row in rows):
        raise typer.Exit(4)
