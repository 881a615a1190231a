"""The page of an audit: what it says, and what strangers cannot make it say."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from custody.encoding import format_time
from custody.formats.case import Documents
from custody.ops.audit import AuditReport
from custody.report.html import render_report
from tests.cli.transcript import run
from tests.release.cast import NOW, Cast
from tests.release.expect import audit, case_of, opened
from tests.report.stories import HOSTILE, eventful, keep_apart, unsound

_VOID = {"meta", "br", "rect", "path", "circle"}


class Reader(HTMLParser):
    """Collects what a page is made of; every element must be closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title", "desc"):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        """What is there to read, with single spaces."""
        return " ".join(" ".join(self.pieces).split())


def read(page: bytes) -> Reader:
    """Read a page through."""
    reader = Reader()
    reader.feed(page.decode())
    reader.close()
    assert [] == reader.open
    return reader


def page_of(report: AuditReport) -> Reader:
    """Write and read the page of an audit."""
    return read(render_report(report))


def test_a_release_is_told_whole(cast: Cast) -> None:
    """The page names who denied, whose share was bad, what failed to open, and what was burned."""
    text = page_of(audit(cast, eventful(cast))).text
    for words in (
        "✓ Sound",
        "All 2 releases hold",
        "gpu-1 did not open it, and its TPM proved that the key opens nothing.",
        "gpu-1 opened it, and its TPM proved that the key opens nothing more.",
        "“the evaluation of 4 January is not signed off”",
        "“I would wait for the red team's report”",
        "share bad",
        "1 bad share",
        "! approval, not counted",
        "given up",
        "✓ burned",
        "the time its own statements claim; nobody vouches for it",
        "not on revocation list 1",
        "signed by cus1, cus2",
    ):
        assert words in text, words


def test_what_fails_stands_first(cast: Cast) -> None:
    """An unsound case says so before all, with every failure, and names the changed component."""
    report = audit(cast, unsound(cast))
    text = page_of(report).text
    assert text.index("✗ Not sound") < text.index("What fails") < text.index("Timeline")
    failures = [v for r in report.releases for v in r.verdicts if v.outcome == "fail"]
    assert failures
    for verdict in failures:
        assert verdict.reason in text[: text.index("Timeline")]
    assert "boot application changed" in text
    assert "revoked at 2027-01-05T11:00:00Z (keyCompromise)" in text
    assert text.index("Evidence of the host's TPM:") < text.index("Policy: ")


def test_strangers_write_nothing_into_the_page(cast: Cast) -> None:
    """A hostile file name is shown as text; its markup and direction marks are not the page's."""
    page = render_report(audit(cast, unsound(cast)))
    reader = read(page)
    assert HOSTILE.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd") in reader.text
    assert "\u202e" not in page.decode()
    assert "\x1b" not in page.decode()
    tags = {tag for tag, _ in reader.tags}
    assert set() == tags & {"script", "img", "link", "iframe", "object", "form", "base", "b"}


def test_every_check_is_on_the_page(cast: Cast) -> None:
    """No verdict of an audit is left out, whatever its outcome."""
    report = audit(cast, eventful(cast))
    page = render_report(report).decode()
    verdicts = [*report.verdicts, *(v for r in report.releases for v in r.verdicts)]
    for release in report.releases:
        assert release.tally is not None
        for answer in (*release.tally.counted, *release.tally.passed_over):
            verdicts += answer.verdicts
        for denial in release.tally.denials:
            verdicts += denial.verdicts
    rows = re.findall(r'<td class="check"><code>([^<]+)</code></td>', page)
    assert sorted(verdict.check for verdict in verdicts) == sorted(rows)


def test_the_page_is_the_same_each_time(cast: Cast) -> None:
    """The same case gives the same bytes: two auditors can compare what they hold."""
    case = eventful(cast)
    assert render_report(audit(cast, case)) == render_report(audit(cast, case))


def test_the_page_needs_nothing_else(cast: Cast) -> None:
    """Its policy lets in its own style sheet by hash and nothing else, and it names no address."""
    page = render_report(audit(cast, unsound(cast))).decode()
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'"
    assert policy in page
    for word in ("http://", "https://", "url(", "@import", "<script", "<link", " src=", " style="):
        assert word not in page, word
    targets = {attrs["href"] for _, attrs in read(page.encode()).tags if "href" in attrs}
    assert all(target is not None and target.startswith("#") for target in targets)


def test_the_page_has_a_structure(cast: Cast) -> None:
    """Language, landmarks, one h1, headings in order, table heads, named pictures, one id each."""
    for story in (eventful, unsound):
        check_structure(page_of(audit(cast, story(cast))))
        keep_apart(cast, story.__name__)


def check_structure(reader: Reader) -> None:
    """Hold one page against what a screen reader needs."""
    names = [tag for tag, _ in reader.tags]
    assert ("html", {"lang": "en"}) in reader.tags
    assert (1, 1, 1, 1) == tuple(names.count(tag) for tag in ("h1", "main", "header", "footer"))
    levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert names.count("table") == names.count("caption") == names.count("thead")
    assert all(attrs.get("scope") in {"col", "row"} for tag, attrs in reader.tags if tag == "th")
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in reader.tags:
        if tag == "svg" and "aria-hidden" not in attrs:
            assert "img" == attrs["role"]
        for named in (attrs.get("aria-labelledby") or "").split():
            assert named in ids
        if (attrs.get("href") or "").startswith("#"):
            assert str(attrs["href"])[1:] in ids


def test_a_case_that_cannot_be_judged_has_a_page(cast: Cast) -> None:
    """With a wrong pin, or with nothing but a request, the page still says what is missing."""
    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    for heap in (case, Documents(requests=(request,)), Documents()):
        page = page_of(audit_with_other_pin(heap))
        assert "✗ Not sound" in page.text
    assert (
        "No policy here follows from the pinned digest" in page_of(audit_with_other_pin(case)).text
    )


def audit_with_other_pin(case: Documents) -> AuditReport:
    """Audit by a pin that is of no policy here."""
    from custody.ops.audit import audit_case

    return audit_case(case, pin="ab" * 32)


def test_opened_contents_are_shown(cast: Cast) -> None:
    """Without a share key the page says that the contents are sealed; with one it lists them."""
    from custody.ops.audit import audit_case
    from custody.ops.audit_contents import open_contents

    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    sealed = page_of(audit(cast, case)).text
    assert "Sealed: names and digests of files need" in sealed
    assert "tokenizer/vocab.txt" not in sealed
    found = open_contents(bundle, cast.people["sec1"].opener, case)
    shown = page_of(audit_case(case, pin=cast.pin, contents=[found])).text
    assert "tiny , version 1.0 : 3 files, 200,021 bytes" in shown
    assert "tokenizer/vocab.txt" in shown


def test_a_stated_time_is_said_to_be_stated(cast: Cast) -> None:
    """The page tells at which moment it judged, and on what basis."""
    from custody.ops.audit import audit_case

    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    page = render_report(audit_case(case, pin=cast.pin, at=NOW))
    assert "a time the auditor stated" in read(page).text
    assert f'<time datetime="{format_time(NOW)}">' in page.decode()


def test_the_command_writes_the_page(
    cast: Cast, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`custody auditor report` writes one file, never over another, and exits as the verdict is."""
    folder = tmp_path / "empty"
    folder.mkdir()
    out = tmp_path / "report.html"
    words = ("auditor", "report", str(folder), "--policy-pin", cast.pin, "--out", str(out))
    said = run(*words, capsys=capsys, monkeypatch=monkeypatch)
    assert (1, f"{out}\n") == (said.code, said.out)
    failed, verdict, hint = said.err.splitlines()[-3:]
    assert failed.endswith("there is no request to judge")
    assert ("NOT SOUND", "hint: name the host's request.dsse") == (verdict, hint[:34])
    assert "there is no request to judge" in read(out.read_bytes()).text
    again = run(*words, capsys=capsys, monkeypatch=monkeypatch)
    assert 1 == again.code
    assert "already there" in again.err
