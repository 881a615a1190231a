"""Logs go both ways with golang.org/x/mod/sumdb: Debian's golang-go, golang-golang-x-mod-dev."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from custody.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from custody.crypto.notekeys import parse_vkey, to_base64
from custody.formats.checkpoint import cosign_checkpoint, decode_checkpoint
from custody.formats.logpolicy import trust_key
from custody.log.reader import Followed, follow
from custody.log.tree import Tree
from custody.log.writer import Writer, create_log
from custody.transports.store import DirectoryStore
from tests.sim.store import MemoryLedger
from tests.unit.log.logs import NOTHING, entries, signer, witness_signer

SOURCES = Path("/usr/share/gocode")
SIZES = (1, 2, 255, 256, 257, 1000, 70_000)

Golog = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def golog(tmp_path_factory: pytest.TempPathFactory) -> Golog:
    """The program in golog/, compiled; skip where Go or the library is not installed."""
    go = shutil.which("go")
    if go is None or not (SOURCES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("no Go (apt-get install golang-go golang-golang-x-mod-dev)")
    place = tmp_path_factory.mktemp("golog")
    settings = {
        "GO111MODULE": "off",
        "GOPATH": str(SOURCES),
        "GOCACHE": str(place / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    program = place / "golog"
    source = Path(__file__).parent / "golog" / "main.go"
    subprocess.run(
        [go, "build", "-o", str(program), str(source)], env={**os.environ, **settings}, check=True
    )

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *map(str, arguments)], capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("size", SIZES)
def test_go_reads_our_logs(size: int, golog: Golog, tmp_path: Path) -> None:
    """Go verifies our checkpoint, cosignature and tiles, and makes the same proofs as we do."""
    store, ledger = DirectoryStore(tmp_path), MemoryLedger()
    create_log(store, signer(), ledger)
    writer = Writer(store, signer(), ledger)
    for at in range(0, size, 30_000):
        writer.append(entries(at, min(size, at + 30_000)))
    witness = witness_signer()
    made = writer.add_cosignatures(
        lambda found, _: [cosign_checkpoint(found.checkpoint, witness, seconds=1_800_000_000)]
    )
    keys = f"{signer().note_key.vkey},{witness.note_key.vkey}"
    wanted = sorted({0, size // 2, size - 1, min(size - 1, 256)})
    done = golog("read", tmp_path, keys, *wanted)
    assert (0, "") == (done.returncode, done.stderr)
    tree = Tree(store, size=size, head=made.checkpoint.root)
    expected = []
    for index in wanted:
        lines = [tree.leaf(index), *tree.inclusion(index)]
        expected.append(f"record {index} " + " ".join(map(to_base64, lines)))
        if index:
            lines = [tree.head_at(index), *tree.consistency(index)]
            expected.append(f"tree {index} " + " ".join(map(to_base64, lines)))
    assert expected == done.stdout.splitlines()


def test_go_refuses_what_we_would(golog: Golog, tmp_path: Path) -> None:
    """With a byte of a tile or of the checkpoint changed, Go does not read our log either."""
    store, ledger = DirectoryStore(tmp_path), MemoryLedger()
    create_log(store, signer(), ledger)
    Writer(store, signer(), ledger).append(entries(0, 300))
    key = signer().note_key.vkey
    assert 0 == golog("read", tmp_path, key, 17).returncode
    for path in ("tile/0/000", "checkpoint"):
        file = tmp_path / path
        good = file.read_bytes()
        file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        assert 0 != golog("read", tmp_path, key, 17).returncode
        file.write_bytes(good)


@pytest.mark.parametrize("size", SIZES)
def test_we_read_logs_of_go(size: int, golog: Golog, tmp_path: Path) -> None:
    """A log that Go has written and signed (Ed25519) is followed and proven here."""
    done = golog("write", tmp_path, "go.example.com/log", size)
    assert (0, "") == (done.returncode, done.stderr)
    key = parse_vkey(done.stdout.strip())
    assert done.stdout.strip() == key.vkey
    found = follow(DirectoryStore(tmp_path), trust_key(key), NOTHING)
    assert isinstance(found, Followed)
    tree = found.tree
    data = (tmp_path / "checkpoint").read_bytes()
    assert data == decode_checkpoint(data).encode()
    for index in {0, size // 2, size - 1}:
        leaf = leaf_hash(b"entry %d" % index)
        assert leaf == tree.leaf(index)
        verify_inclusion(leaf, index, size=size, proof=tree.inclusion(index), head=tree.head)
        verify_consistency(
            index, tree.head_at(index), size, tree.head, proof=tree.consistency(index)
        )
