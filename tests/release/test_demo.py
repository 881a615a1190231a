"""``custody demo``: the main job, live, by a cast of processes; and what must not work."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from custody.errors import Incomplete, Refused, Unavailable
from custody.lab import swtpm
from custody.lab.cast import Lab
from custody.lab.release import digests, find_model
from custody.lab.softhsm import find_library

#: A refusal, as it must be shown, in the order of the story.
REFUSALS = (
    # one approval short: by the rules, then by the TPM alone
    r"✗ request of host2: quorum: 1 more of lead1, lead2 must approve",
    r"✗ request \w{8}, shares of .*: refused by the TPM: the key was made for another policy",
    # two halves of a quorum
    r"✗ request of host2: quorum: 1 more of lead1, lead2 must approve",
    r"✗ request of host2: quorum: 2 more of sec1, sec2, sec3 must approve",
    r"✗ request \w{8}, shares of .*: refused by the TPM: the TPM refused the officer's signature",
    r"✗ request \w{8}, shares of .*: refused by the TPM: the TPM refused the officer's signature",
    # one flipped byte
    r"✗ in/r1/bundle/payload: part \d+ is not the one that was sealed",
)


@dataclass(frozen=True)
class Shown:
    """A demo that has run."""

    lab: Lab
    model: Path
    code: int
    output: str
    talk: str


def demo(lab: Path, model: Path) -> Shown:
    """Run the demo once, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "custody", "demo", "--lab", lab, "--model", model],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    return Shown(Lab(lab), model, done.returncode, done.stdout, done.stderr)


def make_model(folder: Path) -> Path:
    """A small model: a file of several parts, small ones, an empty one, a folder."""
    model = folder / "tiny"
    (model / "tokenizer").mkdir(parents=True)
    seed = hashlib.sha256(b"weights").digest()
    (model / "model.safetensors").write_bytes(seed * 200_000)
    (model / "config.json").write_text('{"layers": 6}')
    (model / "tokenizer" / "vocab.txt").write_text("\n".join(map(str, range(1000))))
    (model / "empty").touch()
    return model


@pytest.fixture(scope="module")
def first() -> Iterator[Shown]:
    """The first demo of a lab."""
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        lab = Path(folder) / "lab"
        try:
            yield demo(lab, make_model(Path(folder)))
        finally:
            Lab(lab).remove()


def test_the_demo_ends_well(first: Shown) -> None:
    """Exit code 0: everything went as it must, the refusals included."""
    assert (0, "") == (first.code, first.talk)
    held = re.search(r"✓ (\d+) checks hold", first.output)
    assert held is not None
    assert int(held[1]) > 100


def test_every_refusal_is_shown_in_order(first: Shown) -> None:
    """What must not work is refused by the rules and by the TPM, each with its reason."""
    shown = [line.strip() for line in first.output.splitlines() if line.strip().startswith("✗")]
    assert len(REFUSALS) == len(shown)
    for pattern, line in zip(REFUSALS, shown, strict=True):
        assert re.match(pattern, line), line


def test_the_attack_is_able_to_succeed(first: Shown) -> None:
    """With a whole quorum the same program opens the shares: it was the TPM that refused before."""
    assert re.search(r"request \w{8}, shares of [a-z0-9, ]+: OPENED", first.output)


def test_the_corrupted_share_is_named(first: Shown) -> None:
    """By host and auditor, while the others still suffice."""
    assert "bad share from sec1 (leaf 0/0" in first.output
    assert "aud1 reads it in the receipt: sec1, leaf 0/0" in first.output


def test_both_hosts_have_the_publishers_model(first: Shown) -> None:
    """Byte for byte, and nothing else."""
    for host in ("host1", "host2"):
        opened = first.lab.actor(host).directory / "models" / "r1"
        assert digests(first.model) == digests(opened)


def test_no_plaintext_leaves_the_hosts(first: Shown) -> None:
    """No file of the lab outside the hosts' models holds a piece of the model or a file's name.

    But in the publisher's private home, where he keeps what he sealed to make updates of it.
    """
    piece, name = hashlib.sha256(b"weights").digest() * 2, b"vocab.txt"
    searched = 0
    private = [host.directory / "models" for host in first.lab.actors("host")]
    private += [actor.directory / "home/sealed" for actor in first.lab.actors("publisher")]
    for path in first.lab.directory.rglob("*"):
        opened = any(path.is_relative_to(folder) for folder in private)
        if path.is_file() and not opened:
            data = path.read_bytes()
            assert piece not in data, path
            assert name not in data, path
            searched += 1
    assert searched > 100


def test_what_is_said_to_try_next_works(first: Shown) -> None:
    """Every command the demo ends with succeeds as it is printed, but the removal is not tried."""
    _, found, rest = first.output.partition("Try next:\n")
    assert found
    commands = [line.strip() for line in rest.splitlines()]
    assert 6 == len(commands)
    for command in commands[:-1]:
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
        )
        assert (0, command) == (done.returncode, command), done.stderr


def test_a_line_of_the_transcript_can_be_run_again(first: Shown) -> None:
    """The transcript is what a person would type: its reviews and audits run as they stand."""
    lines = first.lab.transcript.path.read_text().splitlines()
    again = [line for line in lines if " review " in line or " verify " in line]
    assert 3 == len(again)
    for line in again:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=first.lab.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, done.stderr


def test_a_second_demo_uses_the_same_lab(first: Shown) -> None:
    """It releases again, as the next version, and compares it with the first."""
    second = demo(first.lab.directory, first.model)
    assert (0, "") == (second.code, second.talk)
    assert "changes    since tiny, version 1.1: 0 files changed" in second.output
    assert digests(first.model) == digests(first.lab.actor("host1").directory / "models" / "r2")


def test_a_model_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """Before a lab is made."""
    done = demo(tmp_path / "lab", tmp_path / "nothing")
    assert 1 == done.code
    assert "nothing: is no directory with a model" in done.talk
    assert not (tmp_path / "lab").exists()


def test_the_demo_says_how_to_come_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package with the model is missing, the hint says what to do."""
    monkeypatch.setattr("custody.lab.release.MODEL_PACKAGE", "no-such-package-of-models")
    with pytest.raises(Incomplete) as caught:
        find_model(None)
    assert "make demo" in (caught.value.hint or "")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    """A model is a directory."""
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(Refused):
        find_model(file)
