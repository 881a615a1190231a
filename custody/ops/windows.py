"""Cut a model into windows and digest them, to find what two models have in common.

A window ends where a tensor does, so that a tensor has the same windows wherever in its file it
lies; what is no safetensors file has windows of one size from its beginning.  Nothing of this is
in any format: the receiver verifies parts (parts.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from custody.crypto.parts import PART_SIZES
from custody.errors import Malformed
from custody.formats.safetensors import LENGTH_BYTES, Header, decode_header, header_bytes
from custody.ops.crew import Crew
from custody.ops.linux import OldFile
from custody.ops.model_files import SourceFile
from custody.ops.model_source import SourceFiles
from custody.ops.progress import Progress, silent

_MOST_WINDOWS = 1 << 18
_JOB_BYTES = 64 << 20

#: What a window is found again by: its digest, and its size.
Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes of one file of a model; ``file`` is an index into its files."""

    file: int
    offset: int
    size_bytes: int


Digester = Callable[[Window, memoryview], bytes]


@dataclass(frozen=True, slots=True)
class _Job:
    file: SourceFile
    first: int
    """Index of the first window."""
    windows: Sequence[Window]


def least_part_size(size_bytes: int) -> int:
    """Choose the smallest part size that leaves a model of ``size_bytes`` 2**18 parts at most."""
    fitting = (size for size in PART_SIZES if size_bytes <= size * _MOST_WINDOWS)
    return next(fitting, PART_SIZES[-1])


def blake3_digest(_: Window, view: memoryview) -> bytes:
    """Digest a window (32 bytes)."""
    return blake3(view).digest()


def cut_at_tensors(model: Path, files: Sequence[SourceFile], size_bytes: int) -> list[Window]:
    """Cut files into windows of ``size_bytes`` at most, none across the end of a tensor."""
    source = SourceFiles(model)
    try:
        return [
            window
            for index, file in enumerate(files)
            for begin, end in _stretches(source, file)
            for window in cut_evenly(index, begin, end, size_bytes)
        ]
    finally:
        source.close()


def cut_evenly(file: int, begin: int, end: int, size_bytes: int) -> Iterator[Window]:
    """Cut the bytes of a file from ``begin`` to before ``end`` into windows of one size."""
    for offset in range(begin, end, size_bytes):
        yield Window(file, offset, min(size_bytes, end - offset))


def digest_windows(
    model: Path,
    files: Sequence[SourceFile],
    windows: Sequence[Window],
    *,
    digester: Digester = blake3_digest,
    progress: Progress = silent,
    workers: int | None = None,
) -> list[Key]:
    """Read every window and digest it; ``windows`` are in order of file and offset.

    Raises ``Refused("model.changed")`` where a file is not as it was scanned.
    """
    keys: list[Key] = [(b"", 0)] * len(windows)
    jobs = list(_jobs(files, windows))
    total, done = sum(window.size_bytes for window in windows), [0] * len(jobs)
    source = SourceFiles(model)

    def work(number: int) -> None:
        job = jobs[number]
        buffer = memoryview(bytearray(max(w.size_bytes for w in job.windows)))
        fd = source.open(job.file)
        data = OldFile(fd, job.file.size_bytes)
        try:
            for n, window in enumerate(job.windows, job.first):
                view = buffer[: window.size_bytes]
                source.read(data, job.file, view, window.offset)
                keys[n] = digester(window, view), window.size_bytes
                done[number] += window.size_bytes
        finally:
            data.close()
            os.close(fd)

    crew = Crew(workers)
    try:
        crew.run(range(len(jobs)), work, lambda: progress("compare", sum(done), total))
    finally:
        crew.close()
        source.close()
    progress("compare", total, total)
    return keys


def _jobs(files: Sequence[SourceFile], windows: Sequence[Window]) -> Iterator[_Job]:
    first = 0
    while first < len(windows):
        last, begin = first, windows[first]
        while last < len(windows) and windows[last].file == begin.file:
            if windows[last].offset - begin.offset >= _JOB_BYTES:
                break
            last += 1
        yield _Job(files[begin.file], first, windows[first:last])
        first = last


def _stretches(source: SourceFiles, file: SourceFile) -> Iterator[tuple[int, int]]:
    """Return the header and the tensors of a file, or all of it as one."""
    header = tensor_header(source, file)
    if header is None:
        yield 0, file.size_bytes
        return
    yield 0, header.size_bytes
    yield from ((t.offset, t.offset + t.size_bytes) for t in header.tensors if t.size_bytes)


def tensor_header(source: SourceFiles, file: SourceFile) -> Header | None:
    """Read the header of a safetensors file; None where it is none."""
    if not file.name.endswith(".safetensors"):
        return None
    try:
        return _header(source, file)
    except Malformed:
        # Whatever it is, it is sealed as it is.
        return None


def _header(source: SourceFiles, file: SourceFile) -> Header:
    fd = source.open(file)
    data = OldFile(fd, 0)
    try:
        prefix = bytearray(min(LENGTH_BYTES, file.size_bytes))
        source.read(data, file, memoryview(prefix), 0)
        size = header_bytes(bytes(prefix), file_size_bytes=file.size_bytes)
        text = bytearray(size)
        source.read(data, file, memoryview(text), LENGTH_BYTES)
    finally:
        data.close()
        os.close(fd)
    return decode_header(bytes(text), file_size_bytes=file.size_bytes)
