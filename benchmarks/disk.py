"""From disk to disk, everything synced: beside age, and beside what dd gets out of that disk."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.engine import Engine
from benchmarks.model import make_model
from benchmarks.room import Room
from benchmarks.rows import Row, compared
from benchmarks.timing import Contestant, Times, Took, alternate, run_here, run_process
from custody.ops.linux import drop_behind, in_memory, on_block_device

#: Model and archive, two bundles, two opened copies, what age and dd write.
_COPIES: Final = 9
_ROUNDS: Final = 3
#: Both ways that dd may be fast: past the page cache, and through it.
_COPYING: Final = {
    "dd direct": ("iflag=direct", "oflag=direct", "conv=fsync"),
    "dd": ("conv=fsync",),
}
#: Below the checkout, or where temporary files go.
_PLACES: Final = (Path(__file__).parent.parent / "build", Path(tempfile.gettempdir()))


def rows(bench: Bench) -> Iterator[Row]:
    """Seal and open in turns with age and dd, nothing of the input in the page cache."""
    size = bench.room.model_bytes
    place = _disk(size)
    if place is None:
        print("bench: disk: skipped, no disk has room for it", file=sys.stderr, flush=True)
        return
    rounds = min(bench.rounds, _ROUNDS)
    with _room(place, size) as room:
        model = make_model(room.path, size)
        bundle, engine = room.path / "bundle", _engine(room, model.path)
        encrypted = room.path / "model.tar.age"
        seal, age = bench.actors.seal(model.path, bundle), bench.age
        times = alternate(
            room,
            [
                _cold(room, "custody", partial(run_process, seal), model.path, bundle),
                _cold(
                    room,
                    "age",
                    partial(_synced, age.encrypt(model.archive, encrypted), encrypted),
                    model.archive,
                    encrypted,
                ),
                _cold(room, "engine", partial(run_here, engine.seal), model.path, engine.bundle),
                *_copies(room, model.archive),
            ],
            rounds,
        )
        dd = {name: times[name] for name in _COPYING}
        yield _beside_age("seal", times, dd)
        size = model.archive.stat().st_size
        yield _beside_dd("seal", times["engine"], engine.payload_bytes, dd, size)
        opened, plain = room.path / "opened", room.path / "opened.tar"
        times = alternate(
            room,
            [
                _cold(
                    room,
                    "custody",
                    partial(run_process, bench.actors.open(bundle, opened)),
                    bundle,
                    opened,
                    before=lambda: bench.actors.approve(bundle),
                ),
                _cold(
                    room,
                    "age",
                    partial(_synced, age.decrypt(encrypted, plain), plain),
                    encrypted,
                    plain,
                ),
                _cold(room, "engine", partial(run_here, engine.open), engine.bundle, engine.target),
            ],
            rounds,
        )
        yield _beside_age("open", times, dd)
        yield _beside_dd("open", times["engine"], engine.payload_bytes, dd, size)


def _engine(room: Room, model: Path) -> Engine:
    return Engine(model, room.path / "engine", room.path / "engine-opened")


def _disk(size_bytes: int) -> Path | None:
    """Find a folder on a disk of its own, with room for every copy."""
    for place in _PLACES:
        place.mkdir(exist_ok=True)
        fd = os.open(place, os.O_RDONLY)
        try:
            disk = on_block_device(fd) and not in_memory(place)
        finally:
            os.close(fd)
        if disk and shutil.disk_usage(place).free > _COPIES * size_bytes:
            return place
    return None


@contextmanager
def _room(place: Path, size_bytes: int) -> Iterator[Room]:
    folder = Path(tempfile.mkdtemp(prefix="custody-bench-", dir=place))
    try:
        yield Room(folder, size_bytes, "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cold(
    room: Room,
    name: str,
    run: Callable[[], Took],
    reads: Path,
    writes: Path,
    *,
    before: Callable[[], object] = lambda: None,
) -> Contestant:
    """Let somebody read what is not in memory, and write what is not there."""

    def prepare() -> None:
        room.clear(writes.name)
        before()
        for path in reads.rglob("*") if reads.is_dir() else [reads]:
            if path.is_file():
                _evict(path)

    return Contestant(name=name, run=run, prepare=prepare)


def _evict(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        # What is not on disk yet cannot be let go of.
        os.fsync(fd)
        drop_behind(fd, 0, 0)
    finally:
        os.close(fd)


def _copies(room: Room, source: Path) -> Iterator[Contestant]:
    copy = room.path / "copy"
    for name, how in _COPYING.items():
        words = ["dd", f"if={source}", f"of={copy}", "bs=4M", "status=none", *how]
        yield _cold(room, name, partial(run_process, words), source, copy)


def _synced(words: list[str | Path], output: Path) -> Took:
    """Run a command and bring its output to disk, as ours do of themselves."""
    line = shlex.join(str(word) for word in words)
    return run_process(["sh", "-c", f"{line} && sync {shlex.quote(str(output))}"])


def _beside_age(verb: str, times: dict[str, Times], dd: dict[str, Times]) -> Row:
    ours, theirs = times["custody"], times["age"]
    copied = min(took.wall for took in dd.values())
    return compared(
        f"{verb}_disk_vs_age",
        "s",
        ours.wall,
        theirs.wall,
        f"from disk to disk, input not in memory, output synced; dd, which only copies as many "
        f"bytes, takes {copied / theirs.wall:.2f} of what age does; "
        f"cpu {ours.cpu:.2f} and {theirs.cpu:.2f} s; ours {ours.spread}, age {theirs.spread}",
    )


def _beside_dd(
    verb: str, engine: Times, size_bytes: int, dd: dict[str, Times], copied_bytes: int
) -> Row:
    better = min(dd, key=lambda way: dd[way].wall)
    return compared(
        f"{verb}_disk_vs_dd",
        "GB/s",
        size_bytes / engine.wall / 1e9,
        copied_bytes / dd[better].wall / 1e9,
        f"{verb}_payload alone beside dd copying the model's tar on that disk, both synced, input "
        f"not in memory; {' '.join(_COPYING[better])} was dd's better way; ours {engine.spread}, "
        f"dd {dd[better].spread}; above 1 we move more",
    )
