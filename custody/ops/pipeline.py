"""Work on many parts at once, in bounded memory, with each file still hashed in order.

A file's SHA-256 (the model signature demands it) is sequential, at 1.8 GB/s the slowest step, and
everything else about a part is not.  So each worker owns one buffer and takes one part through all
steps, and only for the SHA-256 it waits for its turn at the file.  One file then keeps two cores
busy, several files all of them.

Parts of one file are begun in order, so whoever waits, waits for a part that some worker already
has, and the earliest part of all waits for nobody.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from custody.crypto.parts import TAG_BYTES
from custody.ops.linux import in_memory, private_memory
from custody.ops.model_files import Extent, Segment, Segments
from custody.ops.progress import Progress

#: Buffers of all workers together, in bytes; with the interpreter it stays below 300 MiB.
_BUFFERS_BYTES = 192 << 20
_WORKERS_ON_DISK = 8
_TICK_SECONDS = 0.1
_ZEROS = memoryview(bytes(1 << 18))

#: Takes a part's index and a buffer of part size + 16 bytes.
Work = Callable[[int, memoryview], None]


class Stopped(Exception):
    """Another worker failed; not an error of its own."""


def worker_count(part_size_bytes: int, wanted: int | None = None) -> int:
    """Count the workers: one per core and one to fill gaps, as far as memory allows."""
    return max(1, min(wanted or _cores() + 1, _BUFFERS_BYTES // part_size_bytes))


def workers_between(*places: Path) -> int:
    """Count the workers wanted where parts come from one place and go to another.

    Eight for each core where some of them will wait for a disk: a file is hashed in order, and who
    waits for its turn to do so has its part read already.  In memory nobody waits, and a
    worker more than there are cores only delays the one whose turn it is to hash: at the end of a
    model, by 8 % of the time it took.
    """
    return _cores() * (1 if all(in_memory(place) for place in places) else _WORKERS_ON_DISK)


def files_at_once(workers: int) -> int:
    """Count the files to work on side by side: more would only make a disk go to and fro."""
    return min(workers, _cores() + 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class FileHashes:
    """SHA-256 of every file, fed from several threads but each in order."""

    def __init__(self, files: Sequence[Extent], segments: Segments) -> None:
        """Take the files and where they lie."""
        self._parts = [segments.parts_of(file) for file in files]
        self._digests: list[bytes | None] = [None] * len(files)
        self._open: dict[int, tuple[hashlib._Hash, int]] = {}
        self._turn = threading.Condition()
        self._stopped = False
        for index, file in enumerate(files):
            if not file.size_bytes:
                self._digests[index] = hashlib.sha256().digest()

    def feed(self, part: int, segment: Segment, view: memoryview) -> bytes | None:
        """Add the bytes that a file has in ``part``; return its digest after the last of them.

        Waits until every earlier part of the file has been fed; raises `Stopped`.
        """
        parts = self._parts[segment.file]
        state = self._wait(segment.file, part) if len(parts) > 1 else hashlib.sha256()
        state.update(view)
        digest = state.digest() if part == parts[-1] else None
        self._digests[segment.file] = digest
        if len(parts) > 1:
            with self._turn:
                self._open[segment.file] = (state, part + 1)
                if digest is not None:
                    del self._open[segment.file]
                self._turn.notify_all()
        return digest

    def digest(self, file: int) -> bytes:
        """Return the digest of a file that was fed whole (32 bytes)."""
        digest = self._digests[file]
        if digest is None:
            raise ValueError("not all of the file was fed")
        return digest

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def _wait(self, file: int, part: int) -> hashlib._Hash:
        first = self._parts[file][0]
        with self._turn:
            if part == first:
                return hashlib.sha256()
            while not self._stopped:
                state, turn = self._open.get(file, (None, first))
                if state is not None and turn == part:
                    return state
                self._turn.wait()
        raise Stopped


def in_hash_order(segments: Sequence[Segment]) -> list[Segment]:
    """Put last what continues a file, for which a worker may have to wait.

    A file that begins here goes before it: the next part's worker may be waiting for that one.
    """
    return sorted(segments, key=lambda segment: segment.file_offset > 0)


def zero(view: memoryview) -> None:
    """Overwrite ``view`` with zeros."""
    for begin in range(0, len(view), len(_ZEROS)):
        block = view[begin : begin + len(_ZEROS)]
        block[:] = _ZEROS[: len(block)]


@contextmanager
def part_buffer(part_size_bytes: int) -> Iterator[memoryview]:
    """Give a buffer of one part and 16 bytes, kept out of core dumps and of forked children.

    It is zeroed at the end, and unmapped once no traceback refers to it any more.
    """
    buffer = private_memory(part_size_bytes + TAG_BYTES)
    try:
        yield buffer
    finally:
        zero(buffer)


class Pool:
    """Threads that take parts in a given order, and stop together at the first error."""

    def __init__(
        self, work: Work, order: Iterator[int], *, part_size_bytes: int, stop: Callable[[], None]
    ) -> None:
        """Take the work, the order to begin parts in, and what frees workers that wait."""
        self._work = work
        self._order = order
        self._part_size_bytes = part_size_bytes
        self._stop = stop
        self._state = threading.Condition()
        self._begun = 0
        self._done = 0
        self._running = 0
        self._stopped = False
        self._errors: list[tuple[int, BaseException]] = []

    def run(self, phase: str, part_count: int, workers: int, progress: Progress) -> None:
        """Work on all parts; of several errors, raise that of the part begun first."""
        total = part_count * self._part_size_bytes
        self._running = min(workers, part_count)
        threads = [
            threading.Thread(target=self._labour, name=f"{phase}-{n}", daemon=True)
            for n in range(self._running)
        ]
        try:
            for thread in threads:
                thread.start()
            while self._tick():
                progress(phase, self._done * self._part_size_bytes, total)
        except BaseException:
            self._halt()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise min(self._errors, key=lambda e: e[0])[1]
        progress(phase, total, total)

    def _tick(self) -> bool:
        with self._state:
            return not self._state.wait_for(lambda: self._running == 0, timeout=_TICK_SECONDS)

    def _halt(self) -> None:
        with self._state:
            self._stopped = True
        self._stop()

    def _labour(self) -> None:
        begun = 0
        try:
            with part_buffer(self._part_size_bytes) as buffer:
                while (taken := self._take()) is not None:
                    begun, index = taken
                    self._work(index, buffer)
                    with self._state:
                        self._done += 1
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._state:
                self._errors.append((begun, error))
            self._halt()
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    def _take(self) -> tuple[int, int] | None:
        with self._state:
            index = None if self._stopped else next(self._order, None)
            if index is None:
                return None
            self._begun += 1
            return self._begun, index
