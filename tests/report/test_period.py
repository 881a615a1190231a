"""The page of a period: what it says, and that it needs nothing else."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from custody.encoding import format_time
from custody.formats.casefile import encode_case_file
from custody.ops.archive import read_archive
from custody.ops.overdue import overdue
from custody.report.html import render_period
from tests.cli.transcript import run
from tests.release.archives import DAY, Month, month
from tests.release.cast import NOW, Cast
from tests.report.stories import HOSTILE
from tests.report.test_page import check_structure, read


def page_of(folder: Path, pin: str, *, since: timedelta = -DAY, until: timedelta = DAY) -> bytes:
    """Write the page of some days around now."""
    found = read_archive([folder], shelves=[], pin=pin)
    late = overdue(found, pin=pin, now=NOW + until)
    return render_period(found, late, pin=pin, since=NOW + since, until=NOW + until)


@pytest.fixture
def archive(cast: Cast, tmp_path: Path) -> Month:
    """Give a month of releases."""
    return month(cast, tmp_path / "archive")


def test_a_period_is_told_whole(archive: Month) -> None:
    """Every release and its end, what each officer answered, and what lingers."""
    text = read(page_of(archive.folder, archive.pin)).text
    for words in (
        "✓ Sound",
        "3 releases: 1 open, approvals are missing; 1 opened and burned; 1 opened, not shown",
        "3 things lingered at the end of the period",
        "overdue.burn",
        "overdue.request",
        "overdue.disposal",
        "custody publisher retire BUNDLE",
        "revocation list 1 is due to be replaced",
        "time claimed",
    ):
        assert words in text, words
    for digest in (archive.opened.digest, archive.unburnt.digest, archive.waiting.digest):
        assert digest[:16] in text


def test_a_period_has_what_happened_in_it(archive: Month) -> None:
    """A release is in the period in which something happened to it, and in no other."""
    early = read(page_of(archive.folder, archive.pin, until=timedelta(hours=1))).text
    assert archive.opened.digest[:16] in early
    assert archive.unburnt.digest[:16] not in early
    nothing = read(page_of(archive.folder, archive.pin, since=DAY, until=2 * DAY)).text
    assert "Nothing happened in this period that is shown here." in nothing


def test_a_spoilt_file_makes_a_period_unsound(archive: Month) -> None:
    """A file that cannot be read is named before all, by its own hostile name as text only."""
    (archive.folder / f"x{HOSTILE.replace('/', '_')}.case").write_bytes(b"junk")
    data = (archive.folder / "2.case").read_bytes()
    (archive.folder / "2.case").write_bytes(data[:-9])
    page = page_of(archive.folder, archive.pin)
    text = read(page).text
    assert "✗ Not sound" in text
    assert "changed, or cut short, since it was made" in text
    assert "<script>" not in page.decode()
    assert "\u202e" not in page.decode()


def test_an_unsound_release_is_named_first(archive: Month, cast: Cast) -> None:
    """A file with a member taken out is not sound, and the page says which and why."""
    from custody.formats.casefile import decode_case_file, suffix_of

    path = archive.folder / "1.case"
    kept = [
        (suffix_of(name), data)
        for name, data in decode_case_file(path.read_bytes())
        if not name.startswith("goldenset-")
    ]
    path.write_bytes(encode_case_file(kept))
    text = read(page_of(archive.folder, archive.pin)).text
    first = text.index("What does not hold")
    assert archive.opened.digest[:16] in text[first : text.index("lingered")]


def test_the_page_has_a_structure_and_needs_nothing(archive: Month) -> None:
    """Landmarks, headings, heads of tables, named pictures; no address, no script; same bytes."""
    page = page_of(archive.folder, archive.pin)
    check_structure(read(page))
    assert page == page_of(archive.folder, archive.pin)
    for word in ("http://", "https://", "url(", "@import", "<script", "<link", " src=", " style="):
        assert word not in page.decode(), word


def test_the_command_writes_the_page_of_a_period(
    archive: Month,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`report --since --until` writes one file; its exit code is the verdict on the whole."""
    out = tmp_path / "week.html"
    times = ("--since", format_time(NOW - DAY), "--until", format_time(NOW + DAY))
    words = ("auditor", "report", str(archive.folder), *times, "--policy-pin", archive.pin)
    said = run(*words, "--out", str(out), capsys=capsys, monkeypatch=monkeypatch)
    assert (0, f"{out}\n", "sound\n") == (said.code, said.out, said.err)
    assert page_of(archive.folder, archive.pin) == out.read_bytes()
    shutil.copy(out, archive.folder / "junk.case")
    again = tmp_path / "again.html"
    said = run(*words, "--out", str(again), capsys=capsys, monkeypatch=monkeypatch)
    unreadable, verdict = said.err.splitlines()
    assert (1, "NOT SOUND") == (said.code, verdict)
    assert unreadable.startswith("unreadable junk.case: ")
