"""Queries an auditor really has, over a folder of collected files, and exports others can read."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from custody.crypto.certificates import spki_of
from custody.crypto.notekeys import LogSigner
from custody.encoding import format_time, key_id
from custody.errors import Refused
from custody.formats.case import merge, read_statement, sort_documents
from custody.formats.casefile import decode_case_file, encode_case_file, suffix_of
from custody.formats.disposal import Disposal
from custody.formats.envelope import decode_statement
from custody.formats.logentry import LogEntry
from custody.lab.swtpm import Swtpm
from custody.ops.archive import read_archive
from custody.ops.dispose import check_doomed, dispose
from custody.ops.export import intoto_bundle, json_lines
from custody.ops.heads import follow_log
from custody.ops.home import Home
from custody.ops.overdue import overdue, unshown
from custody.rules.situation import Situation
from custody.transports.store import DirectoryStore
from tests.cli.transcript import run
from tests.release.archives import DAY, Month, month, whole
from tests.release.cast import NOW, Cast
from tests.release.collected import logged_release
from tests.release.expect import refused
from tests.release.logged import ORIGIN, Log, LoggedCast, witness

Ask = Callable[..., Any]


@pytest.fixture
def archive(cast: Cast, tmp_path: Path) -> Month:
    """Give a month of releases."""
    return month(cast, tmp_path / "archive")


@pytest.fixture
def ask(archive: Month, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask a question of the archive, as JSON; ``code`` is what is expected."""

    def asked(*words: str, code: int = 0, folder: Path | None = None) -> Any:
        verb, *rest = words
        place = str(folder or archive.folder)
        first = [rest[0], place] if verb == "since" else [place, *rest[:1]]
        line = ("auditor", verb, *first, *rest[1:], "--policy-pin", archive.pin, "--json")
        said = run(*line, capsys=capsys, monkeypatch=monkeypatch)
        assert code == said.code, said.err
        return json.loads(said.out)

    return asked


def test_list_names_every_release_and_its_end(archive: Month, ask: Ask) -> None:
    """Three requests in order, of which one was burned, one not, and one waits."""
    rows = ask("list")
    assert [archive.opened.digest, archive.unburnt.digest, archive.waiting.digest] == [
        row["request"] for row in rows
    ]
    assert ["opened-and-burned", "opened-not-burned", "open"] == [row["outcome"] for row in rows]
    assert ["1.case", "2.case", "3.case"] == [row["file"] for row in rows]
    assert all(row["sound"] for row in rows)


def test_a_spoilt_file_of_an_archive_is_named_and_hides_no_other(
    archive: Month, ask: Ask, tmp_path: Path
) -> None:
    """One file with a changed byte is unreadable; the others are still judged."""
    folder = tmp_path / "spoilt"
    shutil.copytree(archive.folder, folder)
    data = bytearray((folder / "2.case").read_bytes())
    data[-1] ^= 1
    (folder / "2.case").write_bytes(data)
    assert ["1.case", "3.case"] == [row["file"] for row in ask("list", code=1, folder=folder)]
    kinds = {row["kind"] for row in ask("overdue", code=4, folder=folder)}
    assert "overdue.file" in kinds


def test_show_tells_one_release_in_order(archive: Month, ask: Ask) -> None:
    """Who published, asked, approved, opened, burned, each with what he knew; what is missing."""
    told = ask("show", archive.opened.digest[:8])
    acts = [entry["act"] for entry in told["account"]]
    assert ["bundle.sealed", "request.made", *["approval.given"] * 3] == acts[3:8]
    assert ["release.opened", "key.burned"] == acts[8:]
    knew = next(e["knew"] for e in told["account"] if e["act"] == "approval.given")
    for word in (archive.old.statement.digest[:16], "policy version 1", "lab-6.1", "mode once"):
        assert word in knew
    assert ["missing.time"] == [gap["missing"] for gap in told["gaps"]]
    waiting = ask("show", archive.waiting.digest[:8])
    assert ["missing.approval", "missing.approval", "missing.receipt", "missing.time"] == [
        gap["missing"] for gap in waiting["gaps"]
    ]


def test_who_approved_is_answered_by_name_host_and_manifest(archive: Month, ask: Ask) -> None:
    """Every answer in order; narrowed by officer, manifest, host and request."""
    assert 8 == len(ask("who-approved"))
    rows = ask("who-approved", "--officer", "sec1")
    assert ["approval.given"] * 3 == [row["answer"] for row in rows]
    (denial,) = ask("who-approved", "--officer", "sec2")
    assert ("denial.given", "“not yet”") == (denial["answer"], denial["note"])
    assert 3 == len(ask("who-approved", "--manifest", archive.old.statement.digest[:12]))
    assert 2 == len(ask("who-approved", "--request", archive.waiting.digest))
    assert [] == ask("who-approved", "--host", "gpu-9")


def test_since_tells_what_happened_in_a_while(archive: Month, ask: Ask) -> None:
    """From a moment on, in order; and until another."""
    later = format_time(NOW + timedelta(hours=4))
    acts = [row["act"] for row in ask("since", later)]
    assert ["request.made", "approval.given", "denial.given"] == acts
    assert [] == ask("since", format_time(NOW + DAY))
    hour = [row["act"] for row in ask("since", format_time(NOW), "--until", later)]
    assert 2 == hour.count("release.opened")
    assert "denial.given" not in hour


def test_a_question_that_nothing_answers_says_so(
    archive: Month,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No bare heads of columns, and no silence; a day is a time, from its beginning in UTC."""

    def asked(*words: str) -> str:
        said = run(
            "auditor", *words, "--policy-pin", archive.pin, capsys=capsys, monkeypatch=monkeypatch
        )
        assert 0 == said.code, said.err
        return said.out

    place = str(archive.folder)
    assert "no such answer is here\n" == asked("who-approved", place, "--officer", "nobody")
    assert "nothing happened in that time\n" == asked("since", "2031-01-01", place)
    assert asked("since", "2020-01-01", place) == asked("since", "2020-01-01T00:00:00Z", place)
    bare = tmp_path / "bare"
    bare.mkdir()
    assert asked("overdue", str(bare)).startswith("nothing is late")


def test_overdue_shows_what_lingers(archive: Month, ask: Ask) -> None:
    """A key not shown to be dead, a request without an end, a superseded bundle, and what ends."""
    at = format_time(NOW + DAY)
    rows = ask("overdue", "--at", at, code=4)
    late = {row["kind"]: row for row in rows if row["due"]}
    assert {"overdue.burn", "overdue.request", "overdue.disposal"} == set(late)
    assert archive.unburnt.digest == late["overdue.burn"]["digest"]
    assert archive.waiting.digest == late["overdue.request"]["digest"]
    assert archive.old.statement.digest == late["overdue.disposal"]["digest"]
    assert "pub" == late["overdue.disposal"]["who"]
    assert {"overdue.crl"} == {row["kind"] for row in rows if not row["due"]}
    far = ask("overdue", "--at", format_time(NOW + 400 * DAY), code=4)
    kinds = {row["kind"] for row in far if row["due"]}
    assert {"overdue.policy", "overdue.certificate", "overdue.crl"} <= kinds


def test_json_lines_have_an_act_a_line(archive: Month, tmp_path: Path, ask: Ask) -> None:
    """Each line is one JSON object, in the order of the acts, with what release it is of."""
    lines = exported(archive, tmp_path, "json-lines").splitlines()
    acts = [json.loads(line) for line in lines]
    assert acts == sorted(acts, key=lambda act: act["at"])
    assert {"opened-and-burned", "opened-not-burned", "open"} == {act["outcome"] for act in acts}
    assert 1 == sum(act["act"] == "policy.issued" for act in acts)


def exported(archive: Month, tmp_path: Path, form: str) -> bytes:
    """Export an archive by the program's own function."""
    found = read_archive([archive.folder], shelves=[], pin=archive.pin)
    return (
        intoto_bundle(found, whole(found)) if form == "in-toto" else json_lines(found, whole(found))
    )


def test_an_in_toto_bundle_is_read_without_us(archive: Month, cast: Cast, tmp_path: Path) -> None:
    """Every line is a DSSE envelope around an in-toto Statement v1, by the letter of both; people's
    signatures verify over the PAE with nothing of ours.
    """
    keys = {
        keyid_of(key): key for person in cast.people.values() for key in map(public, person.signing)
    }
    kinds, verified = set(), 0
    for line in exported(archive, tmp_path, "in-toto").splitlines():
        envelope = json.loads(line)
        assert {"payload", "payloadType", "signatures"} == envelope.keys()
        assert "application/vnd.in-toto+json" == envelope["payloadType"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        statement = json.loads(payload)
        assert {"_type", "subject", "predicateType", "predicate"} == statement.keys()
        assert "https://in-toto.io/Statement/v1" == statement["_type"]
        assert all(64 == len(s["digest"]["sha256"]) for s in statement["subject"])
        kinds.add(statement["predicateType"])
        message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
        for signature in envelope["signatures"]:
            key = keys.get(signature["keyid"])
            if key is not None:
                loaded = load_der_public_key(key)
                assert isinstance(loaded, ec.EllipticCurvePublicKey)
                sig = base64.b64decode(signature["sig"], validate=True)
                loaded.verify(sig, message, ec.ECDSA(hashes.SHA256()))
                verified += 1
    assert 9 == len(kinds), kinds
    assert verified > 15


def shortened(archive: Month, folder: Path, *kinds: str, file: str = "1.case") -> bytes:
    """Copy the archive to a folder, one file of it without its statements of some kinds."""
    shutil.copytree(archive.folder, folder)
    members = decode_case_file((folder / file).read_bytes())
    kept = [(suffix_of(n), data) for n, data in members if not n.startswith(kinds)]
    data = encode_case_file(kept)
    (folder / file).write_bytes(data)
    return data


def test_an_answer_of_an_unsound_release_is_told_as_such(
    archive: Month, ask: Ask, tmp_path: Path
) -> None:
    """An opening whose receipt names approvals that were taken out: who is left did approve, and is
    not quoted without that the release does not hold.
    """
    folder = tmp_path / "short"
    members = decode_case_file((archive.folder / "1.case").read_bytes())
    first = next(name for name, _ in members if name.startswith("approval-"))
    shortened(archive, folder, first)
    rows = ask("who-approved", code=1, folder=folder)
    told = {(row["request"], row["sound"]) for row in rows}
    others = {archive.unburnt.digest, archive.waiting.digest}
    assert {(archive.opened.digest, False), *((other, True) for other in others)} == told
    assert 7 == len(rows)
    told = {
        (row["request"], row["sound"])
        for row in ask("since", "2026-01-01T00:00:00Z", folder=folder)
    }
    assert (archive.opened.digest, False) in told


def test_an_export_says_or_leaves_out_what_does_not_hold(archive: Month, tmp_path: Path) -> None:
    """Each line says whether its release is sound, a file that is not whole included; a bundle has
    no statement of one that is not.
    """
    folder = tmp_path / "short"
    shutil.copytree(archive.folder, folder)
    foreign = decode_case_file((archive.folder / "3.case").read_bytes())
    members = decode_case_file((folder / "1.case").read_bytes())
    both = {name: data for name, data in (*members, *foreign) if name.startswith("approval-")}
    more = [(suffix_of(n), data) for n, data in {**dict(members), **both}.items()]
    (folder / "1.case").write_bytes(encode_case_file(more))
    found = read_archive([folder], shelves=[], pin=archive.pin)
    by_file = {
        act["request"]: act["sound"]
        for act in map(json.loads, json_lines(found, whole(found)).splitlines())
    }
    assert {False, True} == set(by_file.values())
    assert not by_file[archive.opened.digest]
    digests = {
        read_statement(line).digest for line in intoto_bundle(found, whole(found)).splitlines()
    }
    assert archive.opened.digest not in digests
    assert {archive.unburnt.digest, archive.waiting.digest} < digests


@pytest.mark.parametrize("name", ["0.case", "9.case"])
def test_two_files_that_tell_of_one_request_are_judged_together(
    archive: Month, ask: Ask, tmp_path: Path, name: str
) -> None:
    """A file without the end takes nothing from the other, whichever of them sorts first: it is one
    release, with all that either shows, and both named.
    """
    folder = tmp_path / "twice"
    short = shortened(archive, folder, "burn-", "receipt-")
    shutil.copy(archive.folder / "1.case", folder / "1.case")
    (folder / name).write_bytes(short)
    rows = {row["request"]: row for row in ask("list", folder=folder)}
    assert 3 == len(rows)
    row = rows[archive.opened.digest]
    assert (", ".join(sorted(["1.case", name])), "opened-and-burned") == (
        row["file"],
        row["outcome"],
    )
    told = ask("show", archive.opened.digest[:8], folder=folder)
    assert "key.burned" in [entry["act"] for entry in told["account"]]
    late = ask("overdue", "--at", format_time(NOW + DAY), code=4, folder=folder)
    assert archive.opened.digest not in {row["digest"] for row in late}
    assert 8 == len(ask("who-approved", folder=folder))


def test_a_story_that_contradicts_another_is_not_sound(
    archive: Month, ask: Ask, tmp_path: Path
) -> None:
    """A file with a stranger's statement in it, beside a good one of the same request: whoever asks
    is told, and which file it is.
    """
    folder = tmp_path / "twice"
    shutil.copytree(archive.folder, folder)
    members = decode_case_file((folder / "1.case").read_bytes())
    foreign = decode_case_file((archive.folder / "3.case").read_bytes())
    more = dict(members) | {n: data for n, data in foreign if n.startswith("denial-")}
    bad = encode_case_file((suffix_of(n), data) for n, data in more.items())
    (folder / "0.case").write_bytes(bad)
    rows = {row["request"]: row["sound"] for row in ask("list", code=1, folder=folder)}
    assert not rows[archive.opened.digest]
    ask("show", archive.opened.digest[:8], code=1, folder=folder)


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half, DER."""
    from tests.release.cast import spki

    return spki(key)


def keyid_of(spki: bytes) -> str:
    """Return the key id of an SPKI, as anybody computes it."""
    import hashlib

    return hashlib.sha256(spki).hexdigest()


def standing(cast: Cast, archive: Month) -> Situation:
    """What the publisher judges by: the environment, and the newer manifest."""
    newer = sort_documents([("new.dsse", (archive.new.path / "manifest.dsse").read_bytes())])
    return cast.situation("pub", documents=merge(cast.documents, newer))


def test_retire_destroys_a_superseded_bundle_and_says_so(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """The bundle, and what updates were cut by, are gone; the statement ends what was overdue."""
    records = cast.folder / "sealed"
    records.mkdir()
    record = records / f"{archive.old.statement.digest}.json"
    record.write_bytes(b"{}")
    situation = standing(cast, archive)
    doomed = check_doomed(archive.old.path, situation=situation, records=records, keeper=None)
    assert doomed.size_bytes > 200_000
    out = tmp_path / "old.disposal.dsse"
    signer = cast.people["pub"].signer
    dispose(doomed, out, situation=situation, signer=signer, keeper=None, now=NOW)
    assert not archive.old.path.exists()
    assert not record.exists()
    said = decode_statement(Disposal, out.read_bytes()).predicate
    assert ("bundle", "record") == said.destroyed
    assert archive.new.statement.digest == said.replaced_by
    lone = tmp_path / "disposals"
    lone.mkdir()
    shutil.copy(out, lone)
    found = read_archive([archive.folder, lone], shelves=[], pin=archive.pin)
    late = overdue(found, pin=archive.pin, now=NOW + DAY)
    assert "overdue.disposal" not in {each.kind for each in late}


def test_a_disposal_by_another_ends_nothing(cast: Cast, archive: Month, tmp_path: Path) -> None:
    """An officer, or a stranger, cannot say for the publisher that his copy is gone."""
    lone = tmp_path / "disposals"
    lone.mkdir()
    said = Disposal(
        environment=cast.pin,
        manifest=archive.old.statement.digest,
        replaced_by=None,
        destroyed=("bundle",),
        destroyed_bytes=1,
        disposed_at=NOW,
    )
    (lone / "x.dsse").write_bytes(cast.people["sec1"].signer.statement(said))
    found = read_archive([archive.folder, lone], shelves=[], pin=archive.pin)
    late = overdue(found, pin=archive.pin, now=NOW + DAY)
    assert "overdue.disposal" in {each.kind for each in late}


def test_retire_keeps_what_may_still_be_released(
    cast: Cast, archive: Month, tmp_path: Path
) -> None:
    """Neither a bundle that nothing replaces is destroyed, nor one with something strange in it."""
    situation = standing(cast, archive)
    records = cast.folder / "none"
    with refused(cast, "dispose.superseded"):
        check_doomed(archive.new.path, situation=situation, records=records, keeper=None)
    (archive.old.path / "notes.txt").write_text("mine")
    with refused(cast, "dispose.strange"):
        check_doomed(archive.old.path, situation=situation, records=records, keeper=None)
    (archive.old.path / "notes.txt").unlink()
    doomed = check_doomed(archive.old.path, situation=situation, records=records, keeper=None)
    with pytest.raises(Refused) as error:
        dispose(
            doomed,
            tmp_path / "x.dsse",
            situation=situation,
            signer=cast.people["sec1"].signer,
            keeper=None,
            now=NOW,
        )
    assert "dispose.publisher" == error.value.check
    assert (archive.old.path / "payload").exists()


def test_a_killed_retire_is_given_again(cast: Cast, archive: Month, tmp_path: Path) -> None:
    """With only the manifest left of a bundle, the command goes on and says what it destroyed."""
    situation = standing(cast, archive)
    for name in ("payload", "parts"):
        (archive.old.path / name).unlink()
    records = cast.folder / "none"
    doomed = check_doomed(archive.old.path, situation=situation, records=records, keeper=None)
    out = tmp_path / "x.dsse"
    signer = cast.people["pub"].signer
    dispose(doomed, out, situation=situation, signer=signer, keeper=None, now=NOW)
    assert not archive.old.path.exists()


def test_what_a_log_has_and_no_file_shows_is_named(archive: Month) -> None:
    """A denial that was left out of every file is in the log, and asked for by its digest."""
    found = read_archive([archive.folder], shelves=[], pin=archive.pin)
    entries = [
        (0, LogEntry(digest=archive.opened.digest, kind="request")),
        (1, LogEntry(digest="ab" * 32, kind="denial")),
    ]
    (missing,) = unshown(found, entries, now=NOW)
    assert ("overdue.unshown", "ab" * 32) == (missing.kind, missing.digest)


def test_overdue_reads_the_log_that_the_policy_names(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A denial taken out of the only file, digests and all, is still in the log's directory."""
    cast = LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))
    whole = logged_release(cast)
    folder, log = tmp_path / "archive", tmp_path / "published"
    folder.mkdir()
    denied = read_statement(whole.members[whole.named("denial")[0]])
    signer = denied.envelope.signatures[0].keyid
    kept = [
        (suffix_of(name), data)
        for name, data in whole.members.items()
        if not name.startswith("denial-") and not is_of(name, data, signer)
    ]
    (folder / "short.case").write_bytes(encode_case_file(kept))
    published(cast.log, log)
    words = ("auditor", "overdue", str(folder), "--at", format_time(NOW + timedelta(hours=2)))
    more = ("--log", str(log), "--policy-pin", whole.pin, "--home", str(tmp_path / "home"))
    said = run(*words, *more, "--json", capsys=capsys, monkeypatch=monkeypatch)
    missing = [row for row in json.loads(said.out) if row["kind"] == "overdue.unshown"]
    assert 4 == said.code
    assert [denied.digest] == [row["digest"] for row in missing]


def published(log: Log, folder: Path) -> Path:
    """Lay a log out as a directory."""
    for path, data in log.store.objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["rolled-back", "forked", "forked-after", "another-key"])
def test_overdue_believes_no_log_that_lacks_what_the_archive_shows(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The first time he reads it, an auditor holds what is served against his own files' heads."""
    cast = LoggedCast(tmp_path, machine, Log())
    before = cast.log.copy()
    whole = logged_release(cast)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "1.case").write_bytes(whole.data)
    if kind.startswith("forked"):
        count = cast.log.size + (kind == "forked-after")
        before.writer().append(
            [LogEntry(digest=f"{n:064x}", kind="denial").encode() for n in range(count)]
        )
    if kind == "another-key":
        before = Log(LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1())))
    log = published(before, tmp_path / "published")
    home = tmp_path / "home"
    words = ("auditor", "overdue", str(tmp_path / "archive"), "--policy-pin", whole.pin)
    more = ("--home", str(home), "--log", str(log))
    said = run(*words, *more, capsys=capsys, monkeypatch=monkeypatch)
    assert 1 == said.code
    if kind == "another-key":
        assert "has not signed" in said.err
        return
    assert ("rolled-back" == kind) == ("are offered, where" in said.err)
    assert ("rolled-back" != kind) == ("two histories" in said.err)
    (kept,) = (home / "evidence").iterdir()
    assert {"remembered.checkpoint", "offered.checkpoint"} == {f.name for f in kept.iterdir()}


def test_overdue_holds_the_log_against_what_was_seen(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What his home remembers counts too: a log that was longer is refused, whatever files show."""
    cast = LoggedCast(tmp_path, machine, Log())
    whole = logged_release(cast)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "1.case").write_bytes(whole.data)
    shorter = published(cast.log, tmp_path / "shorter")
    cast.log.writer().append([b"more"])
    longer = published(cast.log, tmp_path / "longer")
    words = ("auditor", "overdue", str(tmp_path / "archive"), "--policy-pin", whole.pin)
    more = ("--home", str(tmp_path / "home"), "--at", format_time(NOW + timedelta(hours=2)))
    for log, code in ((shorter, 0), (shorter, 0)):
        said = run(*words, *more, "--log", str(log), capsys=capsys, monkeypatch=monkeypatch)
        assert code == said.code, said.err
    follow_log(Home(tmp_path / "home"), DirectoryStore(longer), cast.log_policy)
    said = run(*words, *more, "--log", str(shorter), capsys=capsys, monkeypatch=monkeypatch)
    assert 1 == said.code
    assert "are offered, where" in said.err


def test_two_histories_in_one_archive_are_told_of_both_files(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each file alone is sound; together they show that the log signed two histories."""
    cast = LoggedCast(tmp_path, machine, Log())
    mine, theirs = cast.log, cast.log.copy()
    folder = tmp_path / "archive"
    folder.mkdir()
    for n, log in enumerate((mine, theirs), 1):
        for who in ("host", "sec1", "sec2", "lead1", "sec3"):
            cast.forget(who)
        cast.log, cast.folder = log, tmp_path / str(n)
        cast.folder.mkdir()
        (folder / f"{n}.case").write_bytes(logged_release(cast).data)
    more = ("--policy-pin", cast.pin, "--json")
    for n in (1, 2):
        said = run(
            "auditor",
            "list",
            str(folder / f"{n}.case"),
            *more,
            capsys=capsys,
            monkeypatch=monkeypatch,
        )
        assert (0, [True]) == (said.code, [row["sound"] for row in json.loads(said.out)])
    said = run("auditor", "list", str(folder), *more, capsys=capsys, monkeypatch=monkeypatch)
    assert (1, [False, False]) == (said.code, [row["sound"] for row in json.loads(said.out)])
    assert "has signed two histories" in said.err
    said = run("auditor", "overdue", str(folder), *more, capsys=capsys, monkeypatch=monkeypatch)
    (row,) = [row for row in json.loads(said.out) if row["kind"] == "overdue.history"]
    assert (4, ORIGIN) == (said.code, row["who"])
    both = (str(folder / "1.case"), str(folder / "2.case"))
    said = run("auditor", "verify", *both, *more, capsys=capsys, monkeypatch=monkeypatch)
    assert 1 == said.code
    assert "log.history" in said.out


def is_of(name: str, data: bytes, keyid: str) -> bool:
    """Tell whether a member is the certificate of that key."""
    return name.endswith(".cer") and key_id(spki_of(data)) == keyid


def test_an_archive_can_lie_in_an_object_store(archive: Month) -> None:
    """What a bucket has under any prefix is read as a folder is, other objects passed over."""
    obstore = pytest.importorskip("obstore")
    from custody.transports.objects import BucketStore

    bucket = obstore.store.MemoryStore()
    for path in archive.folder.iterdir():
        obstore.put(bucket, f"2027/01/{path.name}", path.read_bytes())
    obstore.put(bucket, "notes.txt", b"mine")
    shelf = BucketStore(bucket, name="memory")
    found = read_archive([], shelves=[shelf], pin=archive.pin)
    assert ["2027/01/1.case", "2027/01/2.case", "2027/01/3.case"] == [h.name for h in found.held]
    assert all(held.report.sound for held in found.held)
