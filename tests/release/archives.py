"""An archive as an auditor has it after a month: good releases, bad ones, and what nobody ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from custody.encoding import Digest
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.ops.archive import Archive
from custody.ops.bundle import Bundle
from custody.ops.chronicle import Chronicle, chronicle_of
from custody.ops.collect import collect
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, case_of
from tests.report.stories import deny

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Month:
    """A folder of collected files, and what is in them."""

    folder: Path
    pin: Digest
    old: Bundle
    new: Bundle
    opened: Statement[Request]
    unburnt: Statement[Request]
    waiting: Statement[Request]


def whole(archive: Archive) -> Chronicle:
    """Tell all that an archive shows beside its releases."""
    pins = {held.report.pin for held in archive.held}
    return chronicle_of(archive.documents(), pin=pins.pop(), now=None)


def month(cast: Cast, folder: Path) -> Month:
    """One bundle opened and burned; its successor opened, and not burned; and one asked for that
    nobody ended, with a denial.
    """
    folder.mkdir()
    old = cast.seal("old")
    first = cast.request(old)
    answers = [cast.approve(old, first, who) for who in QUORUM]
    done = cast.open(old, first, answers, cast.folder / "first")
    _write(cast, folder / "1.case", case_of(cast, old, first, answers, done))

    later = NOW + timedelta(hours=3)
    new = cast.seal("new", replaces=old.statement.digest)
    second = cast.request(new, now=later)
    answers = [cast.approve(new, second, who, now=later) for who in QUORUM]
    done = cast.open(new, second, answers, cast.folder / "second", now=later)
    case = case_of(cast, new, second, answers, None, ("receipt.dsse", done.receipt_data))
    before = sort_documents([("old.dsse", (old.path / "manifest.dsse").read_bytes())])
    _write(cast, folder / "2.case", merge(case, before))

    third = cast.request(new, now=later + timedelta(hours=1))
    answers = [
        cast.approve(new, third, "sec1", now=later + timedelta(hours=2)),
        deny(cast, new, third, "sec2", why="not yet", now=later + timedelta(hours=2)),
    ]
    _write(cast, folder / "3.case", case_of(cast, new, third, answers))
    return Month(folder, cast.pin, old, new, first, second, third)


def _write(cast: Cast, path: Path, case: Documents) -> None:
    path.write_bytes(collect(case, pin=cast.pin).data)
