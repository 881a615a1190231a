"""What the machine can do: primitive rates, and the bounds that follow from them.

Every rate is taken with as many threads as there are cores, each on a buffer of a part's size as
the engine uses it, and written down per core: a second of one core does so many bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.room import Room
from custody.crypto.parts import DEFAULT_PART_SIZE, TAG_BYTES

_SECONDS = 0.25
_NONCE = bytes(12)
#: One turn of one thread: the number of the turn and the thread's buffer, tag space behind it.
Step = Callable[[int, memoryview], object]

#: What either way does to each byte of the payload, read and write included.
SEAL = ("read", "sha256", "seal", "blake3", "write")
OPEN = ("read", "open", "sha256", "write")


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second of one core, by step."""

    rate: Mapping[str, float]

    def bound(self, steps: Sequence[str], size_bytes: int) -> float:
        """Return the seconds that all cores together need for ``steps`` on so many bytes."""
        return size_bytes * sum(1 / self.rate[step] for step in steps) / cores()


def median(many: Sequence[Rates]) -> Rates:
    """Take the median of every rate."""
    return Rates({s: statistics.median(one.rate[s] for one in many) for s in many[0].rate})


def measure(room: Room, source: Path) -> Rates:
    """Measure every step once, in a second and a half; ``source`` is a big file in ``room``."""
    key = AESGCM(bytes(32))
    parts = max(1, source.stat().st_size // DEFAULT_PART_SIZE)
    fd = os.open(source, os.O_RDONLY)
    try:
        steps: dict[str, Step] = {
            "read": lambda n, b: os.preadv(
                fd, [b[:DEFAULT_PART_SIZE]], n * 7919 % parts * DEFAULT_PART_SIZE
            ),
            "sha256": lambda _, b: hashlib.sha256(b).digest(),
            "blake3": lambda _, b: blake3(b).digest(),
            "seal": lambda _, b: key.encrypt_into(_NONCE, b[:DEFAULT_PART_SIZE], None, b),
        }
        rates = {name: _rate(step) for name, step in steps.items()}
    finally:
        os.close(fd)
    return Rates(rates | {"open": _open_rate(key), "write": _write_rate(room)})


def _open_rate(key: AESGCM) -> float:
    """Open what was sealed: a wrong tag would cost another path."""
    ready = threading.local()

    def step(_: int, buffer: memoryview) -> None:
        if not hasattr(ready, "sealed"):
            plain = bytes(DEFAULT_PART_SIZE)
            ready.sealed = bytearray(key.encrypt(_NONCE, plain, None))
        key.decrypt_into(_NONCE, ready.sealed, None, buffer[:DEFAULT_PART_SIZE])

    return _rate(step)


def _write_rate(room: Room) -> float:
    """Write new files, one for each core: what no two writers have to share."""
    parts = max(8, min(128, room.model_bytes // DEFAULT_PART_SIZE // 8))
    room.warm(cores() * parts * DEFAULT_PART_SIZE)
    here = threading.local()
    opened: list[int] = []

    def step(number: int, buffer: memoryview) -> None:
        if not hasattr(here, "fd"):
            here.fd = os.open(room.path, os.O_WRONLY | os.O_TMPFILE)
            opened.append(here.fd)
        os.pwrite(here.fd, buffer[:DEFAULT_PART_SIZE], number * DEFAULT_PART_SIZE)

    try:
        return _rate(step, turns=parts)
    finally:
        # Only now: giving the memory back is no part of writing.
        for fd in opened:
            os.close(fd)


def _rate(step: Step, *, turns: int | None = None) -> float:
    """Run a step on all cores for a moment, or ``turns`` times; return bytes per core-second."""
    threads, done = cores(), []
    gate = threading.Barrier(threads)

    def labour() -> None:
        buffer = memoryview(mmap.mmap(-1, DEFAULT_PART_SIZE + TAG_BYTES))[
            : DEFAULT_PART_SIZE + TAG_BYTES
        ]
        buffer[:] = os.urandom(len(buffer))
        gate.wait()
        begun, number = time.perf_counter(), 0
        while number < turns if turns else time.perf_counter() - begun < _SECONDS:
            step(number, buffer)
            number += 1
        done.append(number * DEFAULT_PART_SIZE / (time.perf_counter() - begun))

    workers = [threading.Thread(target=labour) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / threads
