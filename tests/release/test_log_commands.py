"""A logged release, typed as people type it: follow, ask, countersign, open, verify."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from custody.cli import _countersign as countersigning
from custody.cli import main
from custody.crypto.notekeys import LogSigner
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import decode_statement
from custody.formats.logpolicy import LogPolicy
from custody.formats.request import Request
from custody.keys.api import Token
from custody.lab.swtpm import Swtpm
from custody.log.witness import Answer
from custody.ops import logs
from custody.ops.home import Home
from custody.transports.serve import LogServer
from custody.transports.store import DirectoryStore
from tests.cli.transcript import Said
from tests.release.cast import NOW
from tests.release.expect import QUORUM
from tests.release.logged import ORIGIN, Log, LoggedCast
from tests.release.test_attacks import write_environment
from tests.sim.softtoken import SoftToken


@dataclass
class Named(Log):
    """A log of which a policy says more lines."""

    named: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        return (f"log {self.signer.note_key.vkey}", *self.named)


class Typed:
    """A cast whose log lies in a directory, and whose people type commands."""

    def __init__(
        self,
        folder: Path,
        machine: Swtpm,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        witnesses: tuple[str, ...] = ("quorum none",),
    ) -> None:
        self.folder, self.log = folder, folder / "log"
        self._capsys, self._monkeypatch = capsys, monkeypatch
        token = SoftToken()
        home = Home(folder / "homes" / "log", role="log")
        store = DirectoryStore(self.log)
        logs.init_log(home, store, token, uri="pkcs11:", origin=ORIGIN, label="log")
        log = Named(LogSigner(ORIGIN, token.made[0][2]), named=witnesses)
        self.cast = LoggedCast(folder, machine, log)
        monkeypatch.setattr("custody.cli._countersign.open_token", lambda *_, **__: token)
        monkeypatch.setattr("custody.cli._append.open_token", lambda *_, **__: token)
        monkeypatch.setattr("custody.cli.log.open_token", lambda *_, **__: token)
        monkeypatch.setattr("custody.cli._home.utc_now", lambda: NOW)
        monkeypatch.setenv("CUSTODY_ENV", str(folder / "env"))
        monkeypatch.setenv("CUSTODY_TPM", f"tpm:?tcti={machine.tcti}")
        (folder / "boot.log").write_bytes(self.cast.event_log)
        monkeypatch.setenv("CUSTODY_EVENT_LOG", str(folder / "boot.log"))
        write_environment(self.cast, folder / "env")
        self.bundle = self.cast.seal()

    def run(self, role: str, *words: object) -> Said:
        """Run one command."""
        self._monkeypatch.setenv("CUSTODY_HOME", str(self.cast.home(role).path))
        self._monkeypatch.setattr(sys, "argv", ["custody", role, *map(str, words)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        shown = self._capsys.readouterr()
        return Said(int(left.value.code or 0), shown.out, shown.err)

    def done(self, role: str, *words: object) -> Said:
        """Run one command that must succeed."""
        said = self.run(role, *words)
        assert 0 == said.code, said
        return said

    def path(self, name: str) -> Path:
        """A path in the folder."""
        return self.folder / name

    def ask(self) -> Path:
        """Ask, and have the quorum answer into ``case``, where the manifest is as well."""
        path = self.path("request.dsse")
        self.done("host", "request", self.bundle.path, "--log", self.log, "--out", path)
        request = decode_statement(Request, path.read_bytes())
        case = self.path("case")
        case.mkdir()
        manifest = (self.bundle.path / "manifest.dsse").read_bytes()
        (case / "manifest.dsse").write_bytes(manifest)
        for who in QUORUM:
            (case / f"{who}.dsse").write_bytes(self.cast.approve(self.bundle, request, who))
        return path

    def open(self, request: Path) -> Said:
        """Open with what is in ``case``."""
        return self.run(
            *("host", "open", self.bundle.path, request, "--answers", self.path("case")),
            *("--out", self.path("opened"), "--receipt", self.path("case/receipt.dsse")),
            *("--burn", self.path("case/burn.dsse")),
        )


@pytest.fixture
def typed(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Typed:
    """Everything that is needed to type commands."""
    return Typed(tmp_path, machine, capsys, monkeypatch)


def test_the_logs_word_is_of_the_moment_after_its_pin(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approvals ended while the PIN of the log's token was waited for: nothing is logged, and no
    terms are signed.
    """
    request, token = typed.ask(), countersigning.__dict__["open_token"]

    def waited(*args: Any, **named: Any) -> Token:
        monkeypatch.setattr("custody.cli._home.utc_now", lambda: NOW + timedelta(hours=30))
        return cast("Token", token(*args, **named))

    monkeypatch.setattr("custody.cli._countersign.open_token", waited)
    word = typed.path("case/request.logged.dsse")
    words = ("countersign", typed.log, request, typed.path("case"), "--out", word)
    said = typed.run("log", *words)
    assert 4 == said.code
    assert "judged anew, as of the answer" in said.err
    assert not word.exists()
    assert 0 == decode_checkpoint((typed.log / "checkpoint").read_bytes()).checkpoint.size


def test_a_logged_release_from_asking_to_verifying(typed: Typed) -> None:
    """Without the log's word it is incomplete; with it it opens, and verdicts show the entries."""
    request = typed.ask()
    said = typed.open(request)
    assert 4 == said.code
    assert "custody: missing: the log's signature" in said.err
    assert "custody: hint: custody log countersign --help" in said.err
    word = typed.path("case/request.logged.dsse")
    words = ("countersign", typed.log, request, typed.path("case"), "--out", word)
    shown = json.loads(typed.done("log", *words, "--json").out)
    assert [(n, "request" if not n else "approval") for n in range(4)] == [
        (entry["index"], entry["kind"]) for entry in shown["entries"]
    ]
    assert 1 == typed.run("log", *words).code
    said = typed.open(request)
    assert 0 == said.code, said
    assert "the policy says logged: it can be logged later" in said.err
    case = (typed.path("env"), typed.path("case"), request)
    said = typed.done("auditor", "verify", *case)
    assert f"logged     {ORIGIN}: request 0, approval 1, approval 2, approval 3\n" in said.out
    assert "log time   claimed: no witness states one\n" in said.out
    view = json.loads(typed.done("auditor", "verify", *case, "--json").out)
    (logged,) = view["releases"][0]["logged"]
    assert [0, 1, 2, 3] == [entry["index"] for entry in logged["entries"]]
    word.unlink()
    said = typed.run("auditor", "verify", *case)
    assert 1 == said.code
    assert f"opened, and {ORIGIN} has not signed it" in said.out


def test_what_is_made_is_offered_to_the_log(typed: Typed) -> None:
    """A request waits in the log's place until who keeps it appends what is offered."""
    request = typed.path("request.dsse")
    words = ("host", "request", typed.bundle.path, "--out", request)
    said = typed.done(*words, "--log", typed.log)
    assert f"offered to the log: {typed.log}\n" in said.err
    shown = typed.done("log", "append", typed.log, "--offered").out
    assert "(offered)" in shown
    assert "request" in shown


def test_a_host_without_a_network_follows_a_copy_once(typed: Typed) -> None:
    """A copy of the log's directory is enough; from then on the host remembers its head."""
    shutil.copytree(typed.log, typed.path("stick"))
    out = typed.path("request.dsse")
    words = ("host", "request", typed.bundle.path, "--out", out)
    assert 4 == typed.run(*words).code
    typed.done(*words, "--log", typed.path("stick"))
    shutil.rmtree(typed.path("stick"))
    out.unlink()
    typed.done(*words)


def test_a_log_that_does_not_answer(typed: Typed) -> None:
    """A place that was named must answer; a host that has never seen the log asks for nothing."""
    out = typed.path("request.dsse")
    words = ("host", "request", typed.bundle.path, "--out", out)
    said = typed.run(*words)
    assert 4 == said.code
    assert f"custody: missing: a checkpoint of {ORIGIN}" in said.err
    said = typed.run(*words, "--log", typed.path("nowhere"))
    assert 3 == said.code
    assert not out.exists()
    typed.done(*words, "--log", typed.log)
    out.unlink()
    said = typed.done(*words)
    assert "the policy says logged: it can be logged later: custody log append LOG FILE" in said.err


def test_an_officer_follows_the_log(typed: Typed) -> None:
    """His review tells that the host's checkpoint is of the history that he has read himself."""
    request = typed.ask()
    words = ("review", typed.bundle.path, request, "--public", "--checks", "--log", typed.log)
    shown = typed.done("officer", *words)
    assert "one history with the 0 entries seen here" in shown.out + shown.err


def test_any_statement_can_be_offered(typed: Typed) -> None:
    """Giving up a request offers its receipt and burn receipt to the log that is named."""
    request = typed.path("request.dsse")
    typed.done("host", "request", typed.bundle.path, "--out", request, "--log", typed.log)
    typed.done("log", "append", typed.log, "--offered")
    typed.done("host", "cancel", request, "--log", typed.log)
    shown = json.loads(typed.done("log", "append", typed.log, "--offered", "--json").out)
    assert {"receipt", "burn"} == {row["kind"] for row in shown}


def test_how_a_dead_request_ended_is_offered(typed: Typed, machine: Swtpm) -> None:
    """A request that died with its boot is ended by `status`, which offers what shows it."""
    request = typed.path("request.dsse")
    typed.done("host", "request", typed.bundle.path, "--out", request, "--log", typed.log)
    typed.done("log", "append", typed.log, "--offered")
    machine.reboot()
    typed.done("host", "status", "--log", typed.log)
    shown = json.loads(typed.done("log", "append", typed.log, "--offered", "--json").out)
    assert {"receipt", "burn"} == {row["kind"] for row in shown}


def test_a_witnessed_release(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Witnesses of the policy are asked before anything is signed, and verdicts show their time."""
    home = Home(tmp_path / "witness")
    key = logs.init_witness(home, name="w1.example.com").vkey
    known: list[LogPolicy] = []

    def answer(body: bytes) -> Answer:
        return logs.answer_as_witness(home, known[0], body, seconds=int(NOW.timestamp()))

    with served(LogServer(("127.0.0.1", 0), None, answer)) as address:
        lines = (f"witness w1 {key} {address}", "quorum w1")
        typed = Typed(tmp_path, machine, capsys, monkeypatch, lines)
        known.append(typed.cast.log_policy)
        policy = typed.path("log.policy")
        policy.write_text("".join(f"{line}\n" for line in typed.cast.log.lines))
        out = typed.path("request.dsse")
        said = typed.run("host", "request", typed.bundle.path, "--log", typed.log, "--out", out)
        assert (4, "custody: missing: w1") == (said.code, said.err.splitlines()[1])
        typed.done("log", "witness", "ask", typed.log, "--policy", policy)
        request = typed.ask()
        word = typed.path("case/request.logged.dsse")
        words = ("log", "countersign", typed.log, request, typed.path("case"), "--out", word)
        typed.done(*words)
    assert 0 == typed.open(request).code
    said = typed.done("auditor", "verify", typed.path("env"), typed.path("case"), request)
    assert "log time   2027-01-05 12:00:00 UTC\n" in said.out


def test_without_its_witnesses_a_log_signs_nothing(
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A witness that is gone is named; nothing is published, nothing signed, nothing lost."""
    home = Home(tmp_path / "witness")
    key = logs.init_witness(home, name="w1.example.com").vkey
    known: list[LogPolicy] = []

    def answer(body: bytes) -> Answer:
        return logs.answer_as_witness(home, known[0], body, seconds=int(NOW.timestamp()))

    with served(LogServer(("127.0.0.1", 0), None, answer)) as address:
        lines = (f"witness w1 {key} {address}", "quorum w1")
        typed = Typed(tmp_path, machine, capsys, monkeypatch, lines)
        known.append(typed.cast.log_policy)
        policy = typed.path("log.policy")
        policy.write_text("".join(f"{line}\n" for line in typed.cast.log.lines))
        typed.done("log", "witness", "ask", typed.log, "--policy", policy)
        request = typed.ask()
    head = typed.path("log/checkpoint").read_bytes()
    word = typed.path("case/request.logged.dsse")
    words = ("log", "countersign", typed.log, request, typed.path("case"), "--out", word)
    said = typed.run(*words)
    assert 4 == said.code
    assert "custody: missing: w1: does not answer" in said.err
    assert head == typed.path("log/checkpoint").read_bytes()
    assert not word.exists()


@contextmanager
def served(server: LogServer) -> Iterator[str]:
    """Serve for the block, and give the address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
