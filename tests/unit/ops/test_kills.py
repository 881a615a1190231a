"""Killing seal and open at any moment."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from custody.ops import landing, payload_source
from custody.ops.landing import resumable_directory, unfinished_output
from custody.ops.model_files import Segment, Segments
from custody.ops.payload_open import open_into
from tests.unit.ops.bundles import (
    MARKER,
    PART,
    Sealed,
    marked,
    names,
    read_model,
    seal_model,
    write_model,
)
from tests.unit.ops.compressed import seal_compressed
from tests.unit.ops.test_resume import KEY, Publisher, counting

SIZES = {"a": 9 * PART + 1, "b": 5 * PART, "c/d": PART // 2, "c/e": PART - 9, "f": 0, "g": 40}
MODEL = {name: marked(size) for name, size in SIZES.items()}
RANDOM_KILLS = 30
SOAK_KILLS = 300


class Room:
    """One directory with a model and a bundle of it, where killed runs leave what they leave."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.model = write_model(directory / "model", MODEL)
        self.sealed: Sealed = seal_model(self.model, directory / "bundle")
        self.target = directory / "target"

    def seal(self) -> None:
        """Seal to the target."""
        seal_model(self.model, self.target)

    def open(self) -> None:
        """Open to the target."""
        self.sealed.open(self.target)

    def check_seal(self) -> None:
        """See that no plaintext is outside the model, and that a bundle that is there is whole."""
        self._check_plaintext(allowed=lambda _: False)
        if self.target.exists():
            assert {"payload", "parts"} == names(self.target)
        self._finish(self.seal)

    def check_open(self) -> None:
        """See that no plaintext is outside private staging, and that a model there is whole."""
        if self.target.exists():
            assert MODEL == read_model(self.target)
        self._check_plaintext(
            allowed=lambda path: (
                path.name == "target"
                or (path.name.endswith(".partial") and path.stat().st_mode & 0o777 == 0o700)
            )
        )
        self._finish(self.open)
        assert MODEL == read_model(self.target)

    def _check_plaintext(self, *, allowed: Callable[[Path], bool]) -> None:
        for entry in self.path.iterdir():
            if entry != self.model and not allowed(entry):
                assert not any(MARKER in data for data in read_model(entry).values())

    def _finish(self, again: Callable[[], None]) -> None:
        """See that a rerun works, or that another landing sweeps what is left."""
        if self.target.exists():
            landing.sweep(self.path)
        else:
            again()
        assert {"bundle", "model", "target"} == names(self.path)

    def clear(self) -> None:
        """Make room for the next kill."""
        if self.target.exists():
            shutil.rmtree(self.target)


class Compressed(Room):
    """The same, with bundles whose model is compressed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        shutil.rmtree(directory / "bundle")
        self.sealed = seal_compressed(self.model, directory / "bundle")

    def seal(self) -> None:
        """Seal to the target."""
        seal_compressed(self.model, self.target)


def _child(work: Callable[[], None], prepare: Callable[[], None]) -> int:
    """Run ``work`` in a child that may be killed; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        prepare()
        work()
        status = 0
    finally:
        os._exit(status)


def _slow_down() -> None:
    """Make every write take a millisecond, so that a small model takes as long as a large one."""
    pwrite = os.pwrite

    def slowly(fd: int, data: memoryview, offset: int) -> int:
        time.sleep(0.001)
        return pwrite(fd, data, offset)

    os.pwrite = slowly  # type: ignore[assignment]


def _die_at(count: int) -> Callable[[], None]:
    """Kill the process at the ``count``-th call that touches the disk."""
    # Several threads count: with `left -= 1` two of them could pass zero together.
    numbers = itertools.count(1)

    def tick() -> None:
        if next(numbers) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(module: object, name: str) -> None:
        call = getattr(module, name)

        def ticking(*args: object) -> object:
            tick()
            result = call(*args)
            tick()
            return result

        setattr(module, name, ticking)

    def prepare() -> None:
        for name in ("pwrite", "fsync", "close"):
            before(os, name)
        before(landing, "rename_new")
        touching = ("open", "os.mkdir", "os.remove", "os.rmdir", "fcntl.flock", "os.scandir")
        sys.addaudithook(lambda event, _: tick() if event in touching else None)

    return prepare


def _random_kills(tmp_path: Path, verb: str, count: int) -> None:
    room = Room(tmp_path / "room")
    work: Callable[[], None] = getattr(room, verb)
    check: Callable[[], None] = getattr(room, f"check_{verb}")
    begun = time.monotonic()
    assert 0 == os.waitpid(_child(work, _slow_down), 0)[1]
    whole = time.monotonic() - begun
    moments = random.Random(verb)
    early = 0
    for _ in range(count):
        room.clear()
        child = _child(work, _slow_down)
        time.sleep(moments.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if room.target.exists():
            # The first run may have been a slow one, on a busy machine: draw earlier moments.
            whole *= 0.8
        else:
            early += 1
        check()
    # Were most kills too late, the test would show nothing.
    assert early > count // 3


class Resuming:
    """A model, a bundle of it, and runs that go on where a killed one stopped."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        write_model(directory / "model", MODEL)
        self.publisher = Publisher(directory)
        self.bundle: Sealed = seal_model(directory / "model", directory / "source")
        self.target = self.publisher.target

    def seal(self) -> None:
        """Seal, or go on."""
        self.publisher.seal()

    def open(self) -> None:
        """Open, or go on."""
        with resumable_directory(self.target, KEY) as directory:
            open_into(
                self.bundle.bundle,
                directory,
                core=self.bundle.core,
                contents=self.bundle.contents,
                cek=self.bundle.cek,
            )

    def check_seal(self) -> None:
        """See that what is there is kept, and that in the end all of it opens."""
        if not self.target.exists():
            there = self.publisher.keeper.parts_there(self.target) or 0
            sealed, bundle = self.publisher.seal()
            assert there == sealed.kept_parts
            bundle.open(self.path / "opened")
            assert MODEL == read_model(self.path / "opened")
            shutil.rmtree(self.path / "opened")
        # The secrets of a landed bundle may be left by a kill; the next seal here drops them.
        landing.sweep(self.path)
        assert {"home", "model", "source", "bundle"} == names(self.path)

    def check_open(self) -> None:
        """See that no part that was written is opened again, and that the model is whole."""
        if not self.target.exists():
            there = self._parts_there()
            with pytest.MonkeyPatch.context() as patch:
                calls = counting(patch, payload_source, "open_part")
                self.open()
            padding = self.bundle.core.part_count - len(self._parts())
            assert len(self._parts()) - there + padding == len(calls)
        assert MODEL == read_model(self.target)
        landing.sweep(self.path)
        assert {"home", "model", "source", "bundle"} == names(self.path)

    def _parts(self) -> list[list[Segment]]:
        segments = Segments(self.bundle.contents.files, PART)
        found = map(segments.of_part, range(self.bundle.core.part_count))
        return [part for part in found if part]

    def _parts_there(self) -> int:
        left = unfinished_output(self.target, KEY)
        return sum(all(self._there(left, segment) for segment in part) for part in self._parts())

    def _there(self, left: Path | None, segment: Segment) -> bool:
        name = self.bundle.contents.files[segment.file].name
        if left is None or not (left / name).exists():
            return False
        at, end = segment.file_offset, segment.file_offset + segment.size_bytes
        return MODEL[name][at:end] == (left / name).read_bytes()[at:end]

    def clear(self) -> None:
        """Make room for the next kill."""
        if self.target.exists():
            shutil.rmtree(self.target)


@pytest.mark.parametrize("verb", ["seal", "open"])
def test_killed_at_random(tmp_path: Path, verb: str) -> None:
    """Killed at a random moment, nothing half-made has the final name, and a rerun is clean."""
    _random_kills(tmp_path, verb, RANDOM_KILLS)


@pytest.mark.soak
@pytest.mark.parametrize("verb", ["seal", "open"])
def test_killed_at_random_often(tmp_path: Path, verb: str) -> None:
    """The same, hundreds of times."""
    _random_kills(tmp_path, verb, SOAK_KILLS)


@pytest.mark.parametrize("kind", [Room, Resuming, Compressed])
@pytest.mark.parametrize("verb", ["seal", "open"])
def test_killed_at_every_call(
    tmp_path: Path, kind: type[Room | Resuming], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after each call that touches the disk, the same holds; or it goes on."""
    monkeypatch.setitem(MODEL, "a", marked(PART + 1))
    monkeypatch.setitem(MODEL, "b", marked(PART))
    room = kind(tmp_path / "room")
    work: Callable[[], None] = getattr(room, verb)
    check: Callable[[], None] = getattr(room, f"check_{verb}")
    count = 0
    status: int = signal.SIGKILL
    while status == signal.SIGKILL:
        count += 1
        room.clear()
        status = os.waitpid(_child(work, _die_at(count)), 0)[1]
        check()
    assert 0 == status
    # Fewer would mean that the calls were not seen.
    assert count > 50


@pytest.mark.parametrize("verb", ["seal", "open"])
def test_killed_again_and_again(tmp_path: Path, verb: str) -> None:
    """Killed a few calls further each time, the work gets to its end, and the result is whole."""
    room = Resuming(tmp_path / "room")
    work: Callable[[], None] = getattr(room, verb)
    runs, step = 0, 30
    # Killed after it has landed, it is done.
    while not room.target.exists():
        runs, step = runs + 1, step + 10
        assert os.waitpid(_child(work, _die_at(step)), 0)[1] in (0, signal.SIGKILL)
    assert runs > 2
    getattr(room, f"check_{verb}")()
