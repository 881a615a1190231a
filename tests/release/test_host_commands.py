"""A request's end, typed as people type it: open, cancel, unseal, forget, verify."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from custody.cli import main
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.ops.bundle import Bundle
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM
from tests.release.test_attacks import write_environment
from tests.release.test_sealed_updatable import UPDATED, authorise, vouch


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(cast: Cast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands with the cast's clock, homes, TPM and public files."""
    monkeypatch.setattr("custody.cli._home.utc_now", lambda: NOW)
    env = cast.folder / "env"
    monkeypatch.setenv("CUSTODY_ENV", str(env))
    monkeypatch.setenv("CUSTODY_TPM", f"tpm:?tcti={cast.machine.tcti}")
    log = cast.folder / "boot.log"
    log.write_bytes(cast.event_log)
    monkeypatch.setenv("CUSTODY_EVENT_LOG", str(log))

    def command(role: str, *words: object) -> Said:
        if not env.exists():
            write_environment(cast, env)
        who = {"officer": "sec1", "auditor": "sec1"}.get(role, role)
        monkeypatch.setenv("CUSTODY_HOME", str(cast.home(who).path))
        monkeypatch.setattr(sys, "argv", ["custody", role, *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        shown = capsys.readouterr()
        return Said(int(left.value.code or 0), shown.out, shown.err)

    return command


def ask(cast: Cast, run: Run, bundle: Bundle, *options: str) -> Path:
    """Ask for a bundle, and have the quorum answer into ``answers``."""
    path = cast.folder / "request.dsse"
    assert 0 == run("host", "request", bundle.path, "--out", path, *options).code
    request = decode_statement(Request, path.read_bytes())
    answers = cast.folder / "answers"
    answers.mkdir()
    for who in QUORUM:
        (answers / f"{who}.dsse").write_bytes(cast.approve(bundle, request, who))
    return path


def verify(cast: Cast, run: Run, bundle: Bundle, request: Path, *files: Path) -> Said:
    """Judge the case."""
    case = (cast.folder / "env", bundle.path / "manifest.dsse", request, cast.folder / "answers")
    return run("auditor", "verify", *case, *files, "--policy-pin", cast.pin)


def test_an_opening_leaves_its_receipt_and_its_burn(cast: Cast, run: Run) -> None:
    """`host open` writes both files; with them the auditor reads that it was burned."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    receipt, burnt = cast.folder / "receipt.dsse", cast.folder / "burn.dsse"
    words = ("--out", cast.folder / "out", "--answers", cast.folder / "answers")
    said = run("host", "open", bundle.path, request, *words, "--receipt", receipt, "--burn", burnt)
    assert 0 == said.code, said.err
    said = verify(cast, run, bundle, request, receipt, burnt)
    assert "gpu-1 (software TPM): opened and burned\n" in said.out
    assert (0, "sound") == (said.code, said.out.splitlines()[-1])
    said = verify(cast, run, bundle, request, receipt)
    assert "gpu-1 (software TPM): opened, not shown to be burned\n" in said.out
    assert 0 == said.code
    said = run(
        *("auditor", "verify", cast.folder / "env", bundle.path / "manifest.dsse", request),
        *(cast.folder / "answers", receipt, burnt, "--policy-pin", cast.pin, "--json"),
    )
    (release,) = json.loads(said.out)["releases"]
    assert "opened-and-burned" == release["outcome"]
    assert None not in (release["receipt"], release["burn"])


def test_a_cancelled_request_leaves_both_too(cast: Cast, run: Run) -> None:
    """`host cancel` writes a receipt of a failure and its burn: never opened."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    receipt, burnt = cast.folder / "receipt.dsse", cast.folder / "burn.dsse"
    assert 0 == run("host", "cancel", request, "--receipt", receipt, "--burn", burnt).code
    said = verify(cast, run, bundle, request, receipt, burnt)
    assert "gpu-1 (software TPM): never opened, and burned\n" in said.out
    assert 0 == said.code


def test_a_kept_key_from_asking_to_forgetting(cast: Cast, run: Run) -> None:
    """Asked for by `--mode sealed`, read in capitals, unsealed after a reboot, and forgotten."""
    cast.next_policy(modes=("once", "sealed"))
    bundle = cast.seal()
    request = ask(cast, run, bundle, "--mode", "sealed")
    shown = run("officer", "review", bundle.path, request, "--public")
    assert "KEEPS THE KEY" in shown.out, shown.err
    receipt, burnt = cast.folder / "receipt.dsse", cast.folder / "burn.dsse"
    words = ("--out", cast.folder / "out", "--answers", cast.folder / "answers")
    said = run("host", "open", bundle.path, request, *words, "--receipt", receipt, "--burn", burnt)
    assert 0 == said.code, said.err
    said = verify(cast, run, bundle, request, receipt, burnt)
    assert "gpu-1 (software TPM): opened, and kept sealed for restarts\n" in said.out
    assert 0 == said.code

    cast.machine.reboot()
    said = run("host", "unseal", bundle.path, "--out", cast.folder / "again")
    assert (1, True) == (said.code, "pcr 0, 2, 4, 7 differ" in said.err), said.err
    cast.boot()
    said = run("host", "unseal", bundle.path, "--out", cast.folder / "again")
    assert 0 == said.code, said.err
    files = {path.name: path.read_bytes() for path in (cast.folder / "out").glob("*.*")}
    assert files == {path.name: path.read_bytes() for path in (cast.folder / "again").glob("*.*")}

    said = run("host", "forget", bundle.statement.digest[:8])
    assert f"forgotten {bundle.statement.digest}\n" == said.out
    said = run("host", "unseal", bundle.path, "--out", cast.folder / "third")
    assert (4, True) == (said.code, "keeps no key to this bundle" in said.err)
    said = run("host", "forget", bundle.statement.digest[:8])
    assert (4, True) == (said.code, "custody host status lists them" in said.err)


def test_a_kept_key_over_an_update(cast: Cast, run: Run) -> None:
    """`status` tells of kept keys; an authorised update unseals; `forget` drops what is dead."""
    cast.next_policy(modes=("once", "sealed-updatable"))
    bundle = cast.seal()
    request = ask(cast, run, bundle, "--mode", "sealed-updatable")
    shown = run("officer", "review", bundle.path, request, "--public")
    assert "states that enrollers authorise later" in shown.out, shown.err
    words = ("--out", cast.folder / "out", "--answers", cast.folder / "answers")
    assert 0 == run("host", "open", bundle.path, request, *words).code
    said = run("host", "status")
    assert "sealed-updatable  lab-6.1, epoch 1  opens: lab-6.1, epoch 1" in said.out, said.err

    cast.machine.reboot()
    cast.boot(UPDATED)
    said = run("host", "unseal", bundle.path, "--out", cast.folder / "again")
    assert (1, True) == (said.code, "pcr 4 differ" in said.err), said.err
    authorise(cast, vouch(cast, UPDATED, 2, oldest=2), "enr1", "enr2")
    shutil.rmtree(cast.folder / "env")
    said = run("host", "unseal", bundle.path, "--out", cast.folder / "again")
    assert 0 == said.code, said.err
    (view,) = json.loads(run("host", "status", "--json").out)["kept"]
    assert (True, True, 1, 2) == (view["alive"], view["opens"], view["epoch"], view["oldest"])

    cast.tpm.forget_retained(cast.place.keys.all()[0].key)
    said = run("host", "status")
    assert "dead: it was forgotten" in said.out, said.err
    said = run("host", "forget", bundle.statement.digest[:8], "--json")
    assert [] == json.loads(said.out)["dropped"], said.err
    assert [] == list(cast.place.keys.folder.iterdir())
    assert "no open requests" == run("host", "status").out.strip()


def test_an_output_in_the_way_costs_nothing(cast: Cast, run: Run) -> None:
    """A receipt that could not be written is told of before anything is opened or burnt."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    said = run("host", "open", bundle.path, request, "--out", cast.folder / "out")
    assert "custody: hint: no answer to it was found: --answers DIR" in said.err
    taken = cast.folder / "taken"
    taken.write_text("mine")
    words = (bundle.path, request, "--out", cast.folder / "out")
    answers = ("--answers", cast.folder / "answers")
    for receipt, code in ((taken, 1), (cast.folder / "no" / "receipt", 3), (words[-1], 2)):
        said = run("host", "open", *words, *answers, "--receipt", receipt)
        assert code == said.code, said.err
        assert not (cast.folder / "out").exists()
    shown = run("host", "status").out
    assert ("request", "manifest", "mode", "state") == tuple(shown.split()[:4])
    assert "  once  alive until" in shown
    assert 0 == run("host", "open", *words, *answers).code
    assert "mine" == taken.read_text()


def test_a_request_that_is_not_written_can_be_given_up(
    cast: Cast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up at the last moment leaves a request open, and the error names it."""
    bundle = cast.seal()

    def full(path: Path, _: bytes) -> None:
        raise Unavailable("disk full", where=str(path))

    monkeypatch.setattr("custody.cli._open.write_new_file", full)
    said = run("host", "request", bundle.path, "--out", cast.folder / "lost.dsse")
    assert (3, True) == (said.code, "the request stays open without its file" in said.err)
    hint = said.err.strip().rsplit(maxsplit=3)
    assert 0 == run("host", *hint[-2:]).code, said.err
    assert "no open requests" == run("host", "status").out.strip()


def test_a_receipt_can_be_had_again(cast: Cast, run: Run) -> None:
    """What ended is told how and when, and its receipt is copied from the home."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    digest = decode_statement(Request, request.read_bytes()).digest
    out = cast.folder / "receipt.dsse"
    assert 4 == run("host", "receipt", request, "--out", out).code
    words = (bundle.path, request, "--answers", cast.folder / "answers")
    assert 0 == run("host", "open", *words, "--out", cast.folder / "out").code
    said = run("host", "open", *words, "--out", cast.folder / "again")
    assert (1, True) == (said.code, "was opened at" in said.err)
    assert 1 == run("host", "cancel", digest[:8]).code
    for named in (request, digest, digest[:8].upper()):
        out.unlink(missing_ok=True)
        assert 0 == run("host", "receipt", named, "--out", out).code
        assert cast.place.receipt_path(digest).read_bytes() == out.read_bytes()
    assert "no open requests" == run("host", "status").out.strip()


def test_status_says_what_a_request_died_of(cast: Cast, run: Run) -> None:
    """After a reboot `status` and `open` say so, in words and as JSON."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    cast.machine.reboot()
    cast.boot()
    (view,) = json.loads(run("host", "status", "--json").out)["requests"]
    assert (False, "tpm.rebooted", True) == (view["alive"], view["diedOf"], view["burned"])
    assert "no open requests" == run("host", "status").out.strip()
    said = run("host", "open", bundle.path, request, "--out", cast.folder / "out")
    assert (1, True) == (said.code, "reset, restarted or suspended" in said.err)
    assert "custody: hint: its key is dead for good" in said.err


def test_status_burns_what_is_dead(cast: Cast, run: Run) -> None:
    """A dead request leaves receipt and burn receipt, which `receipt` copies for the auditor."""
    request = ask(cast, run, cast.seal())
    cast.machine.reboot()
    cast.boot()
    said = run("host", "status").out
    assert "dead: rebooted or suspended since; its burn receipt is written" in said
    out, burnt = cast.folder / "receipt.dsse", cast.folder / "burn.dsse"
    assert 0 == run("host", "receipt", request, "--out", out, "--burn", burnt).code
    assert "failed" == decode_statement(Receipt, out.read_bytes()).predicate.outcome
    assert burnt.exists()


def test_a_failed_opening_tells_who_answered_what(cast: Cast, run: Run) -> None:
    """Denials, answers that do not count and files that cannot be read are all shown."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    asked = decode_statement(Request, request.read_bytes())
    answers = cast.folder / "answers"
    (answers / "sec3.dsse").unlink()
    (answers / "sec1-no.dsse").write_bytes(cast.deny(bundle, asked, "sec1", at="elsewhere"))
    (answers / "noise.dsse").write_text("{")
    words = (bundle.path, request, "--answers", answers, "--out", cast.folder / "out")
    said = run("host", "open", *words)
    assert 4 == said.code
    for line in (
        "denied     sec1: not yet",
        "uncounted  sec1: sec1 also denied the same terms",
        "missing    2 of sec2, sec3",
        "unreadable noise.dsse: ",
    ):
        assert line in said.err
    (answers / "sec2-no.dsse").write_bytes(cast.deny(bundle, asked, "sec2", at="elsewhere"))
    said = run("host", "open", *words)
    assert (1, True) == (said.code, "out of reach" in said.err)
    assert "custody host request" in said.err


def test_an_auditor_takes_the_pin_he_trusts(cast: Cast, run: Run) -> None:
    """Without --policy-pin his own home's counts; a home that trusts nothing has none to give."""
    bundle = cast.seal()
    request = ask(cast, run, bundle)
    case = (cast.folder / "env", bundle.path / "manifest.dsse", request, cast.folder / "answers")
    said = run("auditor", "verify", *case)
    assert (0, True) == (said.code, "judged by the pin of" in said.err), said.err
    assert "ok  policy.pin" not in said.out
    assert "ok  policy.pin" in run("auditor", "verify", *case, "--checks").out
    said = run("auditor", "verify", *case, "--home", cast.folder / "new")
    assert (4, True) == (said.code, "nothing to judge by" in said.err)


def test_an_audit_says_what_is_lacking_and_who_has_it(cast: Cast, run: Run) -> None:
    """A case without the environment's files, its manifest or its request is unsound, and which
    file would mend that is said in words.
    """
    bundle = cast.seal()
    request, pin = ask(cast, run, bundle), ("--policy-pin", cast.pin)
    env, manifest = cast.folder / "env", bundle.path / "manifest.dsse"
    policies = cast.folder / "policies"
    policies.mkdir()
    (policies / "1.dsse").write_bytes(cast.policies[0])
    whole = (request, manifest, env, cast.folder / "answers")
    needs_env = "name their folder beside it, as custody auditor verify CASE ./production"
    for case, words in (
        (whole, ""),
        ((request, manifest), needs_env),
        ((request, manifest, policies), needs_env),
        ((request, env), "name the bundle's folder too, or its manifest.dsse"),
        ((manifest, env), "name the host's request.dsse"),
        ((cast.folder / "answers", manifest, env), "that each answer and receipt is to"),
    ):
        said = run("auditor", "verify", *case, *pin)
        assert (bool(words), words) == (bool(said.code), words if words in said.err else said.err)
        hints = [line for line in said.err.splitlines() if line.startswith("hint: ")]
        assert len(hints) == len(set(hints))
        # Who writes the page instead is told as much beside it.
        page = cast.folder / f"{len(list(cast.folder.glob('*.html')))}.html"
        told = run("auditor", "report", *case, *pin, "--out", page)
        assert (said.code, f"{page}\n") == (told.code, told.out)
        assert hints == [line for line in told.err.splitlines() if line.startswith("hint: ")]
        failures = [line for line in said.out.splitlines() if line.startswith("NO ")]
        assert failures == [line for line in told.err.splitlines() if line.startswith("NO ")]
    said = run("auditor", "verify", *whole, "--policy-pin", "ab" * 32)
    assert "ask a custodian for the digest again" in said.err
    events = run("auditor", "verify", request, manifest, *pin, "--json").err.splitlines()
    assert needs_env in json.loads(events[0])["text"]
