"""Where the benchmarks work: a folder of RAM that goes away at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_BLOCK = 8 << 20
#: Model, bundle, one peer's input and output, one opened copy and the scratch file.
_COPIES = 6


@dataclass(frozen=True, slots=True)
class Room:
    """A folder to work in, and how many bytes the model in it may have."""

    path: Path
    model_bytes: int
    note: str

    def warm(self, size_bytes: int) -> None:
        """Write a scratch file of that size and delete it: the machine then holds the memory."""
        if not size_bytes:
            return
        block = os.urandom(_BLOCK)
        scratch = self.path / "scratch"
        with scratch.open("wb", buffering=0) as file:
            for _ in range(-(-size_bytes // _BLOCK)):
                file.write(block)
        scratch.unlink()

    def clear(self, *names: str) -> None:
        """Remove what an earlier turn wrote."""
        for name in names:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def room(wanted_bytes: int, place: Path = SHARED_MEMORY) -> Iterator[Room]:
    """Make a room for models of ``wanted_bytes``, or of what memory there is, and say so."""
    free = min(shutil.disk_usage(place).free, _available_memory())
    fits = min(wanted_bytes, free // _COPIES)
    note = ""
    if fits < wanted_bytes:
        fits = max(64 << 20, 1 << (fits.bit_length() - 1))
        note = f"only {free / 1e9:.1f} GB free"
    folder = Path(tempfile.mkdtemp(prefix="custody-bench-", dir=place))
    try:
        yield Room(folder, fits, note)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
