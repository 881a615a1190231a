"""What the auditor's questions share: an archive of collected files, read and judged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._case import pinned, tsa_roots
from custody.cli._history import remembered, retired, say_histories
from custody.cli._ui import Screen

if TYPE_CHECKING:
    from custody.ops.archive import Archive
    from custody.ops.chronicle import Chronicle

#: As much of a digest as commands take.
SHORT = 8
_BUCKETS = ("s3://", "gs://", "az://")

ArchiveArgument = Annotated[
    list[str],
    typer.Argument(
        help="Collected files, folders of them, or s3://, gs://, az://.", metavar="ARCHIVE"
    ),
]

CeremonyOption = Annotated[
    list[Path] | None,
    typer.Option("--ceremony", help="Tell of this ceremony too; may be repeated.", metavar="DIR"),
]


def chronicled(
    screen: Screen,
    archive: Sequence[str],
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
    *,
    ceremonies: Sequence[Path] | None,
    until: datetime | None = None,
) -> tuple[Archive, Chronicle]:
    """Read and judge an archive, as `opened` does, and tell what it shows beside its releases."""
    from custody.ops.audit_ceremony import judge_ceremony
    from custody.ops.chronicle import chronicle_of

    pin = pinned(screen, policy_pin, home)
    found = judged(screen, archive, pin, policy_pin, home, tsa_root)
    chronicle = chronicle_of(
        found.documents(),
        pin=pin,
        now=until,
        tsa_roots=tsa_roots(tsa_root),
        # The policy that came of a ceremony ties it to the pin.
        ceremonies=[judge_ceremony(folder, pin=None) for folder in ceremonies or ()],
    )
    return found, chronicle


def opened(
    screen: Screen,
    archive: Sequence[str],
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
) -> Archive:
    """Read and judge an archive, and name what could not be read."""
    pin = pinned(screen, policy_pin, home)
    return judged(screen, archive, pin, policy_pin, home, tsa_root)


def judged(
    screen: Screen,
    archive: Sequence[str],
    pin: str,
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
) -> Archive:
    """Read and judge an archive by a pin that was settled, as `opened` does."""
    from custody.cli._words import plain
    from custody.ops.archive import read_archive
    from custody.transports.api import open_store

    shelves = [open_store(place) for place in archive if place.startswith(_BUCKETS)]
    paths = [Path(place) for place in archive if not place.startswith(_BUCKETS)]
    found = read_archive(
        paths,
        shelves=shelves,
        pin=pin,
        tsa_roots=tsa_roots(tsa_root),
        remembered=remembered(policy_pin, home),
        retired=retired(policy_pin, home, pin),
    )
    for unopened in found.unopened:
        screen.say(f"unreadable {plain(unopened.name)}: {plain(unopened.reason)}")
    for held in found.empty():
        screen.say(f"NOT SOUND  {plain(held.name)}: tells of no release, which nobody collects")
    say_histories(screen, found)
    if not any(found.releases()):
        screen.say("no release is here; custody auditor collect makes a file of one")
    return found


def is_broken(found: Archive) -> bool:
    """Whether anything of an archive is not there to be judged."""
    return bool(found.unopened) or any(found.empty())


def show_table(
    screen: Screen, heads: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str
) -> None:
    """Show rows of what strangers wrote, or say that there is ``nothing``."""
    from custody.cli._words import plain

    if not rows:
        screen.show(nothing)
        return
    screen.table(heads, [tuple(plain(cell) for cell in row) for row in rows])
