"""A stranger judges logged releases: one file, a pin told to him, no network and no hardware."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from custody.encoding import Digest
from custody.formats.logproof import LogProof, decode_proof
from custody.log.tree import Tree
from custody.ops.audit import audit_case
from custody.ops.collect import collect
from custody.report.html import render_report
from tests.cli.transcript import Said, run
from tests.release.cast import Cast
from tests.release.collected import Collection, faults, reason_of, without, written
from tests.release.conftest import running
from tests.release.expect import audit, case_of, opened
from tests.release.logged import ORIGIN, Log, LoggedCast, witness
from tests.release.test_collected import check_undetected
from tests.report.stories import logged
from tests.report.test_page import check_structure, read

#: Changes tried in the members that only a logged release has.
SAMPLES = 300


@dataclass(frozen=True)
class Sent:
    """What a stranger is sent, and what he was told."""

    file: Path
    pin: Digest

    @property
    def collection(self) -> Collection:
        """The same as members."""
        return Collection(self.pin, self.file.read_bytes())


@pytest.fixture(scope="module")
def sent(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sent]:
    """Collect two logged releases: one failed to open, one was denied by one, opened, burned."""
    folder = tmp_path_factory.mktemp("sent")
    with running(manufactured) as machine:
        cast = LoggedCast(folder, machine, Log(witnesses=[witness()]))
        found = collect(logged(cast), pin=cast.pin)
        assert () == found.missing
        (folder / "release.case").write_bytes(found.data)
        yield Sent(folder / "release.case", cast.pin)


@pytest.fixture
def ask(
    sent: Sent,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Type auditor's commands on a machine that has nothing, and no network."""

    def unplugged(*_: object, **__: object) -> socket.socket:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", unplugged)
    monkeypatch.setenv("CUSTODY_HOME", str(tmp_path / "nobody"))
    for name in ("CUSTODY_ENV", "CUSTODY_LOG", "CUSTODY_TPM"):
        monkeypatch.delenv(name, raising=False)

    def typed(verb: str, *more: str) -> Said:
        words = ("auditor", verb, str(sent.file), "--policy-pin", sent.pin, *more)
        return run(*words, capsys=capsys, monkeypatch=monkeypatch)

    return typed


def test_a_stranger_judges_one_file_by_a_pin(ask: Any) -> None:
    """He learns who asked, approved and denied, whose share was bad, in which order the log has
    it, when by its witness, what came of it, and that nothing is missing.
    """
    said = ask("verify", "--json")
    assert 0 == said.code, said
    view = json.loads(said.out)
    assert view["sound"]
    failed, done = view["releases"]
    assert ["never-opened", "opened-and-burned"] == [failed["outcome"], done["outcome"]]
    assert ["vouched"] * 2 == [release["time"] for release in (failed, done)]
    assert f"witnesses of {ORIGIN}" == done["timeBy"]
    kinds = ["request", *["approval"] * 4, "denial"]
    (word,) = done["logged"]
    assert list(zip(range(4, 10), kinds, strict=True)) == [
        (entry["index"], entry["kind"]) for entry in word["entries"]
    ]
    said = ask("verify")
    assert (0, True) == (said.code, said.out.endswith("\nsound\n"))
    assert "I would wait for the red team's report" in said.out
    proven = [row for row in said.out.splitlines() if "receipt" in row and f"of {ORIGIN}" in row]
    assert len(proven) <= 2


def test_a_strangers_page_shows_the_log(ask: Any, tmp_path: Path) -> None:
    """The page has entries by index and author, the head, its witness with the time, and the
    log's signature; and the other statements with whether they are logged.
    """
    out = tmp_path / "page.html"
    assert 0 == ask("report", "--out", str(out)).code
    reader = read(out.read_bytes())
    check_structure(reader)
    for words in (
        f"✓ countersigned {ORIGIN} holds the request and 5 answers, and signed these terms.",
        "10 entries, one history with the 4 that the request names; root",
        "w1 , 2027-01-05 16:20:00 UTC",
        "4 request gpu-1 2027-01-05 16:20:00 UTC",
        "9 denial lead1 2027-01-05 16:20:00 UTC",
        "✓ logged receipt",
        "✓ logged burn",
        "– not shown manifest",
        "did not open it, and its TPM proved that the key opens nothing.",
    ):
        assert words in reader.text, words
    assert "time: claimed" not in reader.text


def test_without_witnesses_the_page_says_claimed(
    manufactured: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nobody states a time: the page says so, once for the release and at each entry."""
    with running(manufactured) as machine:
        cast = LoggedCast(tmp_path, machine, Log())
        case = logged(cast)
        text = read(render_report(audit_case(case, pin=cast.pin))).text
    assert "! time: claimed no witness and no time-stamping authority that counts" in text
    assert "the policy names none" in text
    assert "4 request gpu-1 time: claimed" in text


def test_a_page_without_the_logs_word(sent: Sent, cast: Cast, tmp_path: Path) -> None:
    """A release whose word was taken out is shown as not logged; and one that needs no log too."""
    bare = sent.collection
    for name in bare.named("logged"):
        bare = Collection(sent.pin, without(bare, name))
    out = tmp_path / "bare.case"
    out.write_bytes(bare.data)
    assert "logged.signed" in faults(bare.data, sent.pin)
    text = read(render_report(audit(cast, case_of(cast, *opened(cast))))).text
    assert "– none asked for The policy in force asks for no log" in text


def test_a_removed_denial_is_missed(sent: Sent) -> None:
    """What only the log refers to, a denial, is missed by its digest when it is left out."""
    whole = sent.collection
    (name,) = whole.named("denial")
    data = without(whole, name)
    digest = name.partition("-")[2].removesuffix(".dsse")
    assert f"denial {digest}" in reason_of("case.missing", data, sent.pin)
    assert "logged.whole" in faults(data, sent.pin)


def test_a_proof_from_another_log_is_named(sent: Sent) -> None:
    """A proof of the same entry by a log of this origin whose key nobody told: beside the good one
    it is foreign, and in its place the file is not what collecting from it gives.
    """
    whole, other = sent.collection, Log()
    name = next(n for n in whole.members if n.endswith(".tlog-proof"))
    entry = decode_proof(whole.members[name]).extra
    assert entry is not None
    done = other.writer().append([entry])
    tree = Tree(other.store, size=1, head=done.signed.checkpoint.root)
    lie = LogProof(0, tree.inclusion(0), done.signed, entry).encode()
    beside = [*whole.members.items(), (name, lie)]
    instead = [(n, lie if n == name else data) for n, data in whole.members.items()]
    for files in (beside, instead):
        assert "case.foreign" in faults(written(*files), sent.pin)


def test_a_changed_byte_of_what_the_log_said_is_found(sent: Sent) -> None:
    """No byte of the log's words and proofs changes unseen, with every digest made right."""
    whole = sent.collection
    at = len(whole.data) - 32 - sum(map(len, whole.members.values()))
    places: list[int] = []
    for name, data in whole.members.items():
        if name.startswith("logged-") or name.endswith(".tlog-proof"):
            places += range(at, at + len(data))
        at += len(data)
    assert places
    choice = random.Random(11)
    for _ in range(SAMPLES):
        check_undetected(whole, choice.choice(places), choice.randrange(1, 256))
