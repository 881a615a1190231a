"""The page in a real browser: it renders, complains of nothing, prints, and can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.ops.archive import read_archive
from custody.ops.audit import audit_case
from custody.ops.overdue import overdue
from custody.ops.receipts import give_up
from custody.report.html import render_period, render_report
from tests.release.archives import DAY, month
from tests.release.cast import NOW, Cast
from tests.release.conftest import running
from tests.release.expect import audit
from tests.release.logged import Log, LoggedCast, witness
from tests.report.browser import CONTRAST, CROWDED, LOST, Browser, browser, program
from tests.report.stories import eventful, keep_apart, logged, unsound

pytestmark = pytest.mark.skipif(
    program() is None, reason="no Chromium here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Run one browser for all tests here."""
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def logged_page(manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of releases that are in a log."""
    folder = tmp_path_factory.mktemp("logged")
    with running(manufactured) as machine:
        cast = LoggedCast(folder, machine, Log(witnesses=[witness("w1"), witness("w2")]))
        report = audit_case(logged(cast), pin=cast.pin)
    page = folder / "logged.html"
    page.write_bytes(render_report(report))
    return page


@pytest.fixture
def pages(cast: Cast, tmp_path: Path, logged_page: Path) -> list[Path]:
    """Write the pages of an eventful case, of an unsound one, of a logged one, and of a period."""
    written = []
    archive = month(cast, tmp_path / "archive")
    (archive.folder / "4.case").write_bytes(b"junk")
    found = read_archive([archive.folder], shelves=[], pin=cast.pin)
    late = overdue(found, pin=cast.pin, now=NOW + 2 * DAY)
    times = {"since": NOW - DAY, "until": NOW + 2 * DAY}
    period = render_period(found, late, pin=cast.pin, **times)
    for entry in cast.place.ledger.all():
        give_up(entry, cast.tpm, cast.place, now=NOW)
    for story in (eventful, unsound):
        report = audit(cast, story(cast))
        written.append(tmp_path / f"{story.__name__}.html")
        written[-1].write_bytes(render_report(report))
        keep_apart(cast, story.__name__)
    written.append(tmp_path / "period.html")
    written[-1].write_bytes(period)
    return [*written, logged_page]


def test_it_can_be_read_on_any_screen(chromium: Browser, pages: list[Path]) -> None:
    """Wide and narrow, light and dark: no complaint, nothing asked for, no sideways scrolling,
    contrast of 4.5 to 1 at least, pictures whose words keep to their places and that fit or say
    that they move, and no cell without a heading.
    """
    grounds = set()
    for page in pages:
        for width in (1280, 820, 375):
            for scheme in ("light", "dark"):
                chromium.show(page, width=width, scheme=scheme)
                assert [] == chromium.complaints()
                assert [page.absolute().as_uri()] == chromium.asked_for()
                assert width == chromium.value("document.documentElement.scrollWidth")
                ratio, text = chromium.value(CONTRAST)
                assert ratio >= 4.5, (page.name, scheme, text)
                assert [] == chromium.value(CROWDED), page.name
                assert [] == chromium.value(LOST), page.name
                grounds.add(chromium.value("getComputedStyle(document.body).backgroundColor"))
                assert chromium.picture(height=400).startswith(b"\x89PNG")
    assert {"rgb(255, 255, 255)", "rgb(20, 24, 29)"} == grounds


def test_its_policy_holds(chromium: Browser, pages: list[Path]) -> None:
    """The browser takes the page's own style sheet, and no script or picture put into it later."""
    chromium.show(pages[0])
    assert "grid" == chromium.value("getComputedStyle(document.querySelector('dl')).display")
    chromium.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); const i = new Image(); i.src = 'file:///x.png';"
        " document.body.append(i); })()"
    )
    assert chromium.value("window.ran") is None
    assert any("Content Security Policy" in told for told in chromium.complaints())


def test_it_prints(chromium: Browser, pages: list[Path]) -> None:
    """Printed, even by a reader who likes it dark, it is black on white, with several pages."""
    for page in pages:
        # As wide as what is printed of a sheet.
        chromium.show(page, width=700, scheme="dark")
        pdf = chromium.paper()
        assert pdf.startswith(b"%PDF-")
        assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") >= 2
        chromium.ask("Emulation.setEmulatedMedia", media="print")
        assert "rgb(255, 255, 255)" == chromium.value(
            "getComputedStyle(document.body).backgroundColor"
        )
        assert "rgb(0, 0, 0)" == chromium.value("getComputedStyle(document.body).color")
        assert "none" == chromium.value("getComputedStyle(document.querySelector('nav')).display")
        assert [] == chromium.value(CROWDED), page.name
        assert "visible" == chromium.value(
            "getComputedStyle(document.querySelector('.picture')).overflowX"
        )
