from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from custody.cli import _append
from custody.cli import log as command
from custody.cli._ui import to_json
from custody.errors import Refused
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import decode_envelope
from custody.formats.witnessing import decode_cosign_request
from custody.log.offers import take_offers
from custody.ops import logs
from custody.ops.home import Home
from custody.rules.heads import goes_with
from custody.transports.api import offer_entries
from custody.transports.serve import LogServer
from custody.transports.store import DirectoryStore
from tests.cli.transcript import Said, replay, run
from tests.sim.softtoken import SoftToken
from tests.unit.crypto.vectors import VECTORS
from tests.unit.log.logs import signer


class Cast:
    """A folder with two statements, a home and a token, and `custody log` to run there."""

    def __init__(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._capsys, self._monkeypatch = capsys, monkeypatch
        token = SoftToken()
        for verbs in (command, _append):
            monkeypatch.setattr(verbs, "open_token", lambda *_, **__: token)
        monkeypatch.setenv("CUSTODY_HOME", str(self.home))
        self.digests = {}
        for name in ("alice", "denial"):
            data = (VECTORS / "approval" / f"{name}.dsse").read_bytes()
            (folder / f"{name}.dsse").write_bytes(data)
            self.digests[name] = decode_envelope(data).digest()
        (folder / "junk.dsse").write_text("{}")
        other = signer("other.example.com").note_key.vkey
        (folder / "other.policy").write_text(f"log {other}\nquorum none\n")

    def say(self, *words: object) -> Said:
        """Run one command."""
        return run("log", *map(str, words), capsys=self._capsys, monkeypatch=self._monkeypatch)

    def done(self, *words: object) -> str:
        """Run one command that must succeed; returns its result."""
        said = self.say(*words)
        assert (0, "") == (said.code, said.err), said
        return said.out

    def path(self, name: str) -> Path:
        """A path in the folder."""
        return self.folder / name

    def policy(self, *lines: str) -> Path:
        """Write a policy of the log with more lines."""
        key = logs.own_keys(Home(self.home))[0].vkey
        path = self.path("log.policy")
        path.write_text("".join(f"{line}\n" for line in (f"log {key}", *lines)))
        return path

    def begin(self) -> None:
        """Begin the log."""
        self.done(
            "init", self.path("log"), "--origin", "log.example.com/models", "--token", "pkcs11:"
        )


@pytest.fixture
def cast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cast:
    """A cast in a folder of its own."""
    return Cast(tmp_path, capsys, monkeypatch)


def test_the_log_transcript(
    cast: Cast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning, appending and every refusal are said in a line, with the right exit code."""
    values = {"folder": str(cast.folder), "home": str(cast.home), **cast.digests}
    replay(Path(__file__).with_name("log.txt"), values, capsys=capsys, monkeypatch=monkeypatch)


def test_a_statement_is_logged_followed_and_proven(cast: Cast) -> None:
    """What was appended is found, its proof is good offline, and another statement's is not."""
    cast.begin()
    cast.done("append", cast.path("log"), cast.path("alice.dsse"))
    policy = cast.policy("quorum none")
    shown = cast.done("checkpoint", cast.path("log"), "--policy", policy)
    assert "entries  1, 1 of them new here" in shown
    assert "time     claimed by nobody" in shown
    cast.done("append", cast.path("log"), cast.path("denial.dsse"))
    key = cast.done("key").strip()
    shown = cast.done("checkpoint", cast.path("log"), "--key", key, "--json")
    assert (2, 1) == (json.loads(shown)["size"], json.loads(shown)["new"])
    proof = cast.path("denial.tlog-proof")
    cast.done("prove", cast.path("log"), cast.path("denial.dsse"), "--key", key, "--out", proof)
    shown = cast.done("verify", proof, cast.path("denial.dsse"), "--policy", policy)
    assert shown.startswith("entry 1 of log.example.com/models\n")
    said = cast.say("verify", proof, cast.path("alice.dsse"), "--policy", policy)
    assert (1, "") == (said.code, said.out)
    assert "the inclusion proof does not lead to the tree's head" in said.err


def test_what_is_not_logged_is_not_proven(cast: Cast) -> None:
    """A statement that was never appended is refused by name, and nothing is written."""
    cast.begin()
    cast.done("append", cast.path("log"), cast.path("alice.dsse"))
    out = cast.path("out.tlog-proof")
    policy = cast.policy("quorum none")
    said = cast.say(
        "prove", cast.path("log"), cast.path("denial.dsse"), "--policy", policy, "--out", out
    )
    assert 1 == said.code
    assert f"custody: error: {cast.path('denial.dsse')}: is not in the log\n" == said.err
    assert not out.exists()


def test_a_rewound_log_is_shown_with_its_evidence(cast: Cast) -> None:
    """The error names the folder in which both heads lie."""
    cast.begin()
    early = cast.path("log/checkpoint").read_bytes()
    cast.done("append", cast.path("log"), cast.path("alice.dsse"))
    late = cast.path("log/checkpoint").read_bytes()
    policy = cast.policy("quorum none")
    cast.done("checkpoint", cast.path("log"), "--policy", policy)
    cast.path("log/checkpoint").write_bytes(early)
    said = cast.say("checkpoint", cast.path("log"), "--policy", policy)
    assert 1 == said.code
    assert "0 entries are offered, where 1 were seen before" in said.err
    folder = Path(said.err.split(": ")[2])
    assert late == (folder / "remembered.checkpoint").read_bytes()
    assert early == (folder / "offered.checkpoint").read_bytes()


@contextmanager
def _served(server: LogServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_witnessed_log(cast: Cast, tmp_path: Path) -> None:
    """With a witness, appending waits for it; without, nothing is published and nothing lost."""
    cast.begin()
    witness = cast.path("witness")
    key = cast.done("witness", "init", "--name", "w1.example.com", "--home", witness).strip()
    offline = cast.policy(f"witness w1 {key} http://127.0.0.1:1", "quorum w1")
    said = cast.say("append", cast.path("log"), cast.path("alice.dsse"), "--policy", offline)
    assert 4 == said.code
    assert "custody: missing: w1: does not answer" in said.err
    answer = command._answering(Home(witness), offline)
    with _served(LogServer(("127.0.0.1", 0), None, answer)) as address:
        policy = cast.policy(f"witness w1 {key} {address}", "quorum w1")
        shown = cast.done(
            "append", cast.path("log"), cast.path("alice.dsse"), "--policy", policy, "--json"
        )
        assert [0] == [row["index"] for row in json.loads(shown)]
        cast.done("append", cast.path("log"), cast.path("denial.dsse"))
        said = cast.say("checkpoint", cast.path("log"), "--policy", policy)
        assert (4, "custody: missing: w1") == (said.code, said.err.splitlines()[1])
        shown = cast.done("witness", "ask", cast.path("log"), "--policy", policy)
    assert "entries  2, 2 of them new here" in shown
    assert "witness  w1, 20" in shown


def test_serving_says_where(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` shows its address, serves until it is stopped, and needs something to serve."""
    cast.begin()
    monkeypatch.setattr(LogServer, "serve_forever", lambda _: None)
    shown = cast.done("serve", cast.path("log"), "--listen", "127.0.0.1:0")
    assert shown.startswith("http://127.0.0.1:")
    for words in ((), ("--witness",), (cast.path("log"), "--listen", "nowhere")):
        assert 2 == cast.say("serve", *words).code


def test_no_private_key_is_shown(cast: Cast) -> None:
    """Neither what a witness's commands show nor its identity's repr holds its seed."""
    shown = cast.done("witness", "init", "--name", "w1.example.com") + cast.done("key")
    data = json.loads((cast.home / "witness.json").read_text())
    assert data["seed"] not in shown
    assert 0o600 == (cast.home / "witness.json").stat().st_mode & 0o777
    said = cast.say("witness", "init", "--name", "w2.example.com")
    assert 1 == said.code
    assert data["seed"] not in said.err + to_json(repr(logs.witness_signer(Home(cast.home))))


def test_what_is_offered_is_logged_once(cast: Cast) -> None:
    """Entries wait in the log's own place, come into it with the next batch, and are gone then."""
    cast.begin()
    entry = logs.read_entry(cast.path("alice.dsse")).encode()
    offer_entries(str(cast.path("log")), [entry, entry])
    (waiting,) = cast.path("log/offered").iterdir()
    assert entry == waiting.read_bytes()
    (cast.path("log/offered") / "junk").write_bytes(b"junk")
    (cast.path("log/offered") / ("0" * 64)).write_bytes(entry)
    shown = cast.done("append", cast.path("log"), cast.path("denial.dsse"), "--offered", "--json")
    rows = [(row["index"], row["kind"], row["file"]) for row in json.loads(shown)]
    assert [(0, "denial", str(cast.path("denial.dsse"))), (1, "approval", None)] == rows
    assert [] == list(cast.path("log/offered").iterdir())
    said = cast.say("append", cast.path("log"))
    assert 2 == said.code


def test_a_server_takes_offers_if_it_is_told_to(cast: Cast) -> None:
    """Over HTTP an entry is taken, anything else is not, and a log that takes none says so."""
    cast.begin()
    store = DirectoryStore(cast.path("log"))
    entry = logs.read_entry(cast.path("alice.dsse")).encode()
    with _served(LogServer(("127.0.0.1", 0), store, None, store)) as address:
        offer_entries(address, [entry])
        with pytest.raises(Refused, match="answers 400"):
            offer_entries(address, [b"no entry"])
        with pytest.raises(Refused, match="answers 413"):
            offer_entries(address, [b"x" * 300])
    with (
        _served(LogServer(("127.0.0.1", 0), store, None)) as address,
        pytest.raises(Refused, match="answers 404"),
    ):
        offer_entries(address, [entry])
    assert (entry,) == take_offers(store)


def test_a_log_proves_how_it_went_on(cast: Cast) -> None:
    """The file ties a head that was seen before to the newest one."""
    cast.begin()
    cast.done("append", cast.path("log"), cast.path("alice.dsse"))
    early = decode_checkpoint(cast.path("log/checkpoint").read_bytes()).checkpoint
    cast.done("append", cast.path("log"), cast.path("denial.dsse"))
    late = decode_checkpoint(cast.path("log/checkpoint").read_bytes()).checkpoint
    out, policy = cast.path("on.tlog-consistency"), cast.policy("quorum none")
    words = ("consistency", cast.path("log"), "--policy", policy, "--out", out, "--old")
    cast.done(*words, "1")
    proof = decode_cosign_request(out.read_bytes())
    assert not goes_with(early, late, [])
    assert goes_with(early, late, [proof])
    assert goes_with(late, early, [proof])
    assert not goes_with(replace(early, root=bytes(32)), late, [proof])
    out.unlink()
    assert 2 == cast.say(*words, "3").code
