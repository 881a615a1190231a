"""What whoever keeps an auditor's files can make him believe of them, and cannot."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from custody.cli._audit_words import release_view
from custody.encoding import format_time
from custody.formats.approval import Denial
from custody.formats.case import merge, read_statement, sort_documents
from custody.formats.casefile import decode_case_file, encode_case_file, suffix_of
from custody.formats.envelope import Signature, encode_statement
from custody.formats.logentry import entry_of
from custody.ops.archive import acts_of, read_archive
from custody.ops.audit import audit_case
from custody.ops.export import intoto_bundle, json_lines
from custody.ops.home import Home
from custody.ops.overdue import unshown
from custody.ops.trust import pin, remember_retired
from custody.report.period import period_of
from tests.cli.transcript import run
from tests.release.archives import DAY, Month, month, whole
from tests.release.cast import NOW, Cast, person, spki
from tests.release.expect import changed, failed
from tests.release.test_retirement import retirement
from tests.release.tsa import Authority

Ask = Callable[..., Any]


@pytest.fixture
def archive(cast: Cast, tmp_path: Path) -> Month:
    """Give a month of releases."""
    return month(cast, tmp_path / "archive")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command of the auditor's; return its code, output and errors."""

    def said(*words: str) -> Any:
        return run("auditor", *words, capsys=capsys, monkeypatch=monkeypatch)

    return said


def members(archive: Month, file: str) -> dict[str, bytes]:
    """Return the members of one file of an archive."""
    return dict(decode_case_file((archive.folder / file).read_bytes()))


def loose(archive: Month, file: str, folder: Path, *more: bytes) -> Path:
    """Lay the members of one file into a folder, and strangers' statements beside them."""
    folder.mkdir()
    for name, data in members(archive, file).items():
        (folder / name).write_bytes(data)
    for number, data in enumerate(more):
        (folder / f"more-{number}.dsse").write_bytes(data)
    return folder


def test_an_archive_is_judged_by_the_retirements_its_auditor_saw(
    cast: Cast, archive: Month, say: Ask, tmp_path: Path
) -> None:
    """Files that leave out that a host was retired: what `verify` refuses, no question and no page
    calls sound.
    """
    home = Home(tmp_path / "auditor")
    pin(home, documents=cast.documents, digest=cast.pin, now=NOW)
    before = NOW - timedelta(minutes=30)
    told = replace(cast.documents, retirements=retirement(cast, at=before))
    remember_retired(home, documents=told, now=NOW)
    place, words = str(archive.folder), ("--home", str(home.path))
    assert 1 == say("verify", str(archive.folder / "1.case"), *words).code
    listed = say("list", place, *words, "--json")
    assert 1 == listed.code
    assert not any(row["sound"] for row in json.loads(listed.out))
    assert 1 == say("show", place, archive.opened.digest[:8], *words).code
    assert 1 == say("who-approved", place, *words).code
    assert 1 == say("export", place, *words, "--out", str(tmp_path / "all.jsonl")).code
    since = ("--since", format_time(NOW - DAY), "--out", str(tmp_path / "page.html"))
    assert 1 == say("report", place, *words, *since, "--until", format_time(NOW + DAY)).code


def test_a_bundle_exports_no_strangers_statements(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """In a folder anybody may lay a statement beside a sound release: an approval and a denial with
    an officer's key id and no signature of his, a manifest by nobody.  None of them is exported.
    """
    (name,) = (n for n in members(archive, "3.case") if n.startswith("approval-"))
    (no,) = (n for n in members(archive, "3.case") if n.startswith("denial-"))
    key = cast.people["sec3"].signer.key_id
    forged = []
    for said in (read_statement(members(archive, "3.case")[n]).predicate for n in (name, no)):
        lie = msgspec.structs.replace(said, author=key) if isinstance(said, Denial) else said
        forged.append(encode_statement(lie, [Signature(keyid=key, sig=b"no signature")]))
    folder = loose(archive, "3.case", tmp_path / "heap", *forged)
    found = read_archive([folder], shelves=[], pin=archive.pin)
    assert all(release.sound for _, release in found.releases())
    lines = intoto_bundle(found, whole(found)).splitlines()
    assert set(lines) == {d for n, d in members(archive, "3.case").items() if n.endswith(".dsse")}


def test_a_bundle_exports_no_answer_that_does_not_count(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """An approval that is good for nothing, in a sound release: nothing in its line says so."""
    (name,) = (n for n in members(archive, "3.case") if n.startswith("approval-"))
    longer = changed(
        cast, members(archive, "3.case")[name], "sec1", expires_at=NOW + timedelta(days=900)
    )
    folder = tmp_path / "files"
    folder.mkdir()
    files = [(suffix_of(n), data) for n, data in members(archive, "3.case").items()]
    (folder / "3.case").write_bytes(encode_case_file([*files, (".dsse", longer)]))
    found = read_archive([folder], shelves=[], pin=archive.pin)
    assert all(held.holds(release) for held, release in found.releases())
    uncounted = {a.entry.statement for a in acts_of(found) if a.entry.act == "approval.uncounted"}
    assert {read_statement(longer).digest} == uncounted
    assert longer not in intoto_bundle(found, whole(found)).splitlines()


def test_a_timestamp_moves_nothing_out_of_a_period(
    archive: Month, say: Ask, tmp_path: Path
) -> None:
    """Whoever keeps the files can have them stamped again, later.  What its author says he did in a
    time is told of that time; so is what somebody saw in it, however it is dated.
    """
    tsa, folder = Authority(), tmp_path / "stamped"
    (folder).mkdir()
    (tmp_path / "tsa.pem").write_bytes(tsa.root)
    files = [(suffix_of(n), data) for n, data in members(archive, "1.case").items()]
    burn = next(d for n, d in members(archive, "1.case").items() if n.startswith("burn-"))
    hour = timedelta(hours=1)
    later = NOW + 5 * hour
    token = tsa.stamp(read_statement(burn).digest, later)
    (folder / "1.case").write_bytes(encode_case_file([*files, (".tsr", token)]))
    words = (str(folder), "--policy-pin", archive.pin, "--tsa-root", str(tmp_path / "tsa.pem"))

    def acts(since: str, until: str) -> list[str]:
        said = say("since", since, *words, "--until", until, "--json")
        return [row["act"] for row in json.loads(said.out)]

    told = {"request.made", "approval.given", "release.opened", "key.burned"}
    assert told <= set(acts(format_time(NOW - hour), format_time(NOW + hour)))
    assert told <= set(acts(format_time(later), format_time(later + hour)))
    assert [] == acts(format_time(later + hour), format_time(later + 2 * hour))
    found = read_archive([folder], shelves=[], pin=archive.pin, tsa_roots=[tsa.root])

    def row(since: datetime, until: datetime) -> list[bool]:
        page = period_of(found, (), pin=archive.pin, since=since, until=until)
        assert len(page.rows) == sum("asked for" in line.words for line in page.course.lines)
        return [since <= row.at < until for row in page.rows]

    assert [True] == row(NOW - hour, NOW + hour) == row(later, later + hour)
    assert [True] == row(NOW + hour, NOW + 2 * hour)
    assert [] == row(later + hour, later + 2 * hour)


def test_who_did_is_told_of_nobody_whose_key_did_not_sign(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """A manifest in the publisher's name and a request in a host's, which anybody can write."""
    manifest = archive.old.statement.predicate
    forged = msgspec.structs.replace(
        manifest, core=msgspec.structs.replace(manifest.core, payload_id="0" * 64)
    )
    key = cast.people["pub"].signer.key_id
    bad = encode_statement(forged, [Signature(keyid=key, sig=b"no signature")])
    asked = archive.opened.predicate
    terms = msgspec.structs.replace(asked.terms, manifest=read_statement(bad).digest)
    lie = msgspec.structs.replace(asked, terms=terms)
    request = encode_statement(lie, [archive.opened.envelope.signatures[0]])
    folder = tmp_path / "heap"
    folder.mkdir()
    for number, data in enumerate([bad, request]):
        (folder / f"{number}.dsse").write_bytes(data)
    for name, data in members(archive, "1.case").items():
        if name.startswith(("policy", "enrolment", "golden", "certificate", "crl")):
            (folder / name).write_bytes(data)
    found = read_archive([folder], shelves=[], pin=archive.pin)
    (release,) = (release for _, release in found.releases())
    assert not release.sound
    who = {act.entry.act: act.entry.who for act in acts_of(found)}
    assert "unknown" == who["bundle.sealed"]
    assert "unknown" == who["request.made"]
    shown = release_view(release)
    assert ("", None) == (shown.publisher, shown.publisher_token)


def test_a_spoilt_copy_takes_no_officers_name_from_his_answer(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """An answer that does not count is still told as his, whoever lays a copy beside it."""
    (name,) = (n for n in members(archive, "3.case") if n.startswith("approval-"))
    longer = changed(
        cast, members(archive, "3.case")[name], "sec1", expires_at=NOW + timedelta(days=900)
    )
    said = read_statement(longer)
    for number, key in enumerate(("0" * 64, "f" * 64)):
        copy = encode_statement(said.predicate, [Signature(keyid=key, sig=b"no signature")])
        folder = loose(archive, "3.case", tmp_path / f"heap-{number}", copy, longer)
        found = read_archive([folder], shelves=[], pin=archive.pin)
        told = {a.entry.who for a in acts_of(found) if a.entry.act == "approval.uncounted"}
        assert {"sec1", "unknown"} == told


def test_a_files_name_writes_nothing_but_itself(archive: Month, say: Ask, tmp_path: Path) -> None:
    """A file that is called by escape sequences or directions, or by no text at all."""
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"\x1b[2K\x1b[1Asound.case", "evil\u202eesac.case".encode(), b"\xff\x9b2J.case"]
    for number, name in enumerate(names, start=1):
        shutil.copy(archive.folder / f"{number}.case", folder / os.fsdecode(name))
    data = members(archive, "1.case")
    bad = [(suffix_of(n), d) for n, d in data.items() if not n.startswith("receipt-")]
    (folder / "\x1b[31mbad.case").write_bytes(encode_case_file(bad))
    pin_words = ("--policy-pin", archive.pin)
    single = [str(path) for path in sorted(folder.iterdir())]
    outputs = [
        say("list", str(folder), *pin_words),
        say("show", str(folder), archive.opened.digest[:8], *pin_words),
        say("who-approved", str(folder), *pin_words),
        say("verify", *single, *pin_words, "--checks"),
        say("overdue", str(folder), *pin_words),
        say("export", str(folder), *pin_words, "--out", str(tmp_path / "out.jsonl")),
    ]
    for said in outputs:
        shown = said.out + said.err
        assert all(char.isprintable() or char == "\n" for char in shown), repr(shown)
        assert "Traceback" not in shown
    found = read_archive([folder], shelves=[], pin=archive.pin)
    for line in json_lines(found, whole(found)).splitlines():
        assert json.loads(line)["file"].isprintable()


def test_a_file_without_its_request_is_not_passed_over(
    archive: Month, say: Ask, tmp_path: Path
) -> None:
    """A collected file out of which the request was taken tells of no release, and is no good."""
    folder = tmp_path / "cut"
    folder.mkdir()
    data = members(archive, "1.case")
    kept = [(suffix_of(n), d) for n, d in data.items() if not n.startswith("request-")]
    (folder / "1.case").write_bytes(encode_case_file(kept))
    shutil.copy(archive.folder / "2.case", folder / "2.case")
    words = (str(folder), "--policy-pin", archive.pin)
    for verb in (("list", *words), ("who-approved", *words)):
        said = say(*verb)
        assert 1 == said.code
        assert "1.case" in said.err
    said = say("export", *words, "--out", str(tmp_path / "out"))
    assert 1 == said.code
    assert "1.case" in said.err


def test_a_strangers_copy_hides_no_logged_answer(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """The text of a denial, signed by somebody else, is not the denial that the log has."""
    data = members(archive, "3.case")
    (name,) = (n for n in data if n.startswith("denial-"))
    said = read_statement(data[name])
    cast.people["mallory"] = person("mallory", "officer")
    copy = cast.people["mallory"].signer.statement(said.predicate)
    folder = loose(archive, "3.case", tmp_path / "heap", copy)
    (folder / name).unlink()
    entry = entry_of(said.envelope)
    found = read_archive([folder], shelves=[], pin=archive.pin)
    late = unshown(found, [(5, entry)], now=NOW)
    assert [said.digest] == [each.digest for each in late]
    (folder / name).write_bytes(data[name])
    found = read_archive([folder], shelves=[], pin=archive.pin)
    assert () == unshown(found, [(5, entry)], now=NOW)


def test_a_revocation_list_that_is_left_out_is_not_missed(cast: Cast, archive: Month) -> None:
    """What no file can show: that an authority had issued a newer list.  The older one is judged by
    until it is due again; by the newer one, the same release does not hold.
    """
    files = [(n, data) for n, data in members(archive, "1.case").items()]
    signer = spki(cast.people["sec1"].signing[0])
    newer = cast.make_crl(number=2, revoked=[signer], at=NOW - timedelta(hours=1))
    older = sort_documents(files)
    assert audit_case(older, pin=archive.pin).sound
    told = merge(older, sort_documents([("newer.crl", newer)]))
    assert "receipt.approvals" in failed(audit_case(told, pin=archive.pin))
