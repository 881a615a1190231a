"""How a log grows: appends a second, and how long a proof takes, from a thousand entries on.

The key is a software key, so that this is the log's own time and not a token's.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.bench import Bench
from benchmarks.rows import Row, alone
from custody.crypto.notekeys import LogSigner
from custody.encoding import sha256
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.logentry import LogEntry
from custody.formats.logpolicy import trust_key
from custody.formats.logstate import SeenLogs
from custody.log.reader import Followed, follow
from custody.log.tree import Tree
from custody.log.writer import Writer, create_log
from custody.ops.home import Home
from custody.ops.logs import HomeLedger
from custody.transports.store import DirectoryStore

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_BATCH = 2_000
_LARGE_BATCH = 50_000
_PROOFS = 200
_ORIGIN = "log.example.com/bench"


def rows(bench: Bench) -> Iterator[Row]:
    """Grow one log through every size, and measure it at each."""
    place = bench.room.path / "log"
    try:
        yield from measure(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def measure(place: Path, sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """Measure in a directory that does not exist yet."""
    store = DirectoryStore(place / "log")
    ledger = HomeLedger(Home(place / "home"))
    signer = LogSigner(_ORIGIN, ec.generate_private_key(ec.SECP256R1()))
    create_log(store, signer, ledger)
    writer = Writer(store, signer, ledger)
    nothing = SeenLogs(kind="custody/logs-seen/v1", logs=())
    before, size = nothing, 0
    for target in sizes:
        while size < target - _BATCH:
            count = min(_LARGE_BATCH, target - _BATCH - size)
            writer.append(_entries(size, count))
            size += count
        yield from _appends(writer, size, min(_BATCH, target - size))
        size = target
        followed, seconds = _timed(partial(_follow, store, signer, before))
        note = f"from {followed.seen} entries, tiles on disk"
        yield alone(f"log {target}: follow", "ms", 1000 * seconds, note)
        before = followed.remember(before)
        yield from _proofs(store, followed.signed, target)


def _appends(writer: Writer, size: int, count: int) -> Iterator[Row]:
    batch = _entries(size, count - 1)
    _, seconds = _timed(lambda: writer.append(batch))
    note = f"one batch of {count - 1}, every file synced"
    yield alone(f"log {size + count}: appends", "1/s", len(batch) / seconds, note)
    _, seconds = _timed(lambda: writer.append(_entries(size + count - 1, 1)))
    yield alone(f"log {size + count}: one append", "ms", 1000 * seconds, "a batch of one")


def _proofs(store: DirectoryStore, signed: SignedCheckpoint, size: int) -> Iterator[Row]:
    head = signed.checkpoint
    step = max(1, size // _PROOFS)

    def cold(index: int) -> None:
        Tree(store, size=head.size, head=head.root).inclusion(index)

    tree = Tree(store, size=head.size, head=head.root)
    for name, work, note in (
        ("proof", cold, "nothing read before, every tile checked"),
        ("proof, open", tree.inclusion, "tree open, tiles kept"),
    ):
        took = [_timed(partial(work, at))[1] for at in range(0, size, step)]
        yield alone(f"log {size}: {name}", "ms", 1000 * statistics.median(took), note)
    old = size // 3
    _, seconds = _timed(lambda: tree.consistency(old))
    yield alone(f"log {size}: consistency", "ms", 1000 * seconds, f"from {old} entries")


def _follow(store: DirectoryStore, signer: LogSigner, seen: SeenLogs) -> Followed:
    found = follow(store, trust_key(signer.note_key), seen)
    if not isinstance(found, Followed):
        raise TypeError("our own log contradicts itself")
    return found


def _entries(start: int, count: int) -> list[bytes]:
    return [
        LogEntry(digest=sha256(b"%d" % n).hex(), kind="approval").encode()
        for n in range(start, start + count)
    ]


T = TypeVar("T")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begun
