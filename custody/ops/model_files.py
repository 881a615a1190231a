"""A model directory: what is in it, and where each file goes in the payload.

Protocol: docs/protocol.md section 3.3.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Protocol

import msgspec

from custody.crypto.parts import DEFAULT_PART_SIZE, PART_SIZES, padded_parts
from custody.errors import Refused
from custody.formats.contents import MAX_FILES, Base, check_names
from custody.ops.landing import disk_errors

#: How directories are opened.
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Rows and plaintext digests of this many parts take 27 MiB.
_PARTS_AT_DEFAULT_SIZE = 1 << 18


class Identity(msgspec.Struct, frozen=True):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Take it from a stat result."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model.  ``name`` is relative to it, ``/``-separated."""

    name: str
    size_bytes: int
    identity: Identity


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a model in code-point order, and the directories that hold none."""

    files: tuple[SourceFile, ...]
    empty_directories: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Sum of all file sizes."""
        return sum(file.size_bytes for file in self.files)


class Extent(Protocol):
    """A file that has a place in the payload: `Placed`, or a `File` of the contents."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A source file and its first byte's offset into the payload."""

    file: SourceFile
    offset: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.file.name

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.file.size_bytes


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where every file lies; ``files`` is in code-point order of their names.

    ``base`` says what a delta takes from elsewhere; the payload carries the other parts.
    """

    part_size_bytes: int
    part_count: int
    files: tuple[Placed, ...]
    base: Base | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the plaintext, padding included."""
        return self.part_size_bytes * self.part_count


class Segment(msgspec.Struct, frozen=True):
    """The bytes that one file has in one part."""

    file: int
    """Index into the files the segments are of."""
    file_offset: int
    part_offset: int
    size_bytes: int


class Segments:
    """Which bytes of which file lie in which part."""

    def __init__(self, files: Sequence[Extent], part_size_bytes: int) -> None:
        """Take ``files`` that do not overlap; empty ones lie in no part."""
        filled = [i for i, file in enumerate(files) if file.size_bytes]
        self._order = sorted(filled, key=lambda i: files[i].offset)
        self._starts = [files[i].offset for i in self._order]
        self._ends = [files[i].offset + files[i].size_bytes for i in self._order]
        self._size = part_size_bytes

    def of_part(self, index: int) -> list[Segment]:
        """Return the segments of part ``index``, in order of their offset."""
        begin = index * self._size
        end = begin + self._size
        found = []
        for n in range(bisect_right(self._ends, begin), bisect_left(self._starts, end)):
            low, high = max(begin, self._starts[n]), min(end, self._ends[n])
            found.append(Segment(self._order[n], low - self._starts[n], low - begin, high - low))
        return found

    def parts_of(self, extent: Extent) -> range:
        """Return the parts that ``extent`` has bytes in."""
        if not extent.size_bytes:
            return range(0)
        last = (extent.offset + extent.size_bytes - 1) // self._size
        return range(extent.offset // self._size, last + 1)


def scan(model: Path) -> Scan:
    """List the files of a model, opening none.

    Regular files only: a symlink, device, FIFO or socket is refused, and so is a name that is not
    UTF-8 or that not every disk could keep beside the others.  Raises `Refused` (``model.*``) and,
    where the directory cannot be read, `Unavailable`.
    """
    files: list[SourceFile] = []
    empty: list[str] = []
    with disk_errors(model):
        root = os.open(model, DIRECTORY)
    waiting = [""]
    try:
        while waiting:
            directory = waiting.pop()
            with disk_errors(model / directory):
                below = _scan_directory(root, directory, model, files)
            if below is None:
                empty.append(directory)
            else:
                waiting += below
    finally:
        os.close(root)
    if not files:
        raise Refused("holds no file", check="model.empty", where=str(model))
    files.sort(key=lambda file: file.name)
    try:
        check_names([file.name for file in files])
    except ValueError as error:
        reason = str(error).removeprefix("files: ")
        raise Refused(reason, check="model.name", where=str(model)) from error
    return Scan(files=tuple(files), empty_directories=tuple(sorted(empty)))


def _scan_directory(
    root: int, directory: str, model: Path, files: list[SourceFile]
) -> list[str] | None:
    """Add the files of one directory; return the directories in it, None where it is empty."""
    below: list[str] = []
    fd = open_beneath(root, directory, DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            count = len(files)
            for entry in entries:
                name = f"{directory}/{_utf8(entry.name, model)}".removeprefix("/")
                status = os.lstat(os.fsencode(entry.name), dir_fd=fd)
                if stat.S_ISDIR(status.st_mode):
                    below.append(name)
                    continue
                _check_kind(status.st_mode, name, model)
                identity = Identity.of(status)
                files.append(
                    SourceFile(name=name, size_bytes=identity.size_bytes, identity=identity)
                )
                if len(files) > MAX_FILES:
                    raise Refused(
                        f"more than {MAX_FILES} files", check="model.files", where=str(model)
                    )
    finally:
        os.close(fd)
    return below if below or len(files) > count else None


def _utf8(name: str, model: Path) -> str:
    # The bytes on disk decide, not how the locale of this process spells them.
    try:
        return os.fsencode(name).decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"a name is not UTF-8: {os.fsencode(name)!r}", check="model.name", where=str(model)
        ) from error


def _check_kind(mode: int, name: str, model: Path) -> None:
    where = str(model / name)
    if stat.S_ISLNK(mode):
        # What it points to could change between review and sealing, or lie outside the model.
        raise Refused(
            "a symbolic link, as in a model hub's cache; a model is sealed from plain files",
            check="model.symlink",
            where=where,
            hint=f"cp -rL {quote(str(model))} {quote((model.name or 'model') + '-plain')}",
        )
    if not stat.S_ISREG(mode):
        raise Refused("not a regular file", check="model.special", where=where)


def open_beneath(root: int, name: str, flags: int, mode: int = 0o600) -> int:
    """Open ``name`` below the directory ``root``, following no symbolic link on the way."""
    *parents, last = name.split("/") if name else ["."]
    fd = root
    try:
        for piece in parents:
            below = os.open(piece.encode(), DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            if fd != root:
                os.close(fd)
            fd = below
        return os.open(last.encode(), flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=fd)
    finally:
        if fd != root:
            os.close(fd)


def default_part_size(size_bytes: int) -> int:
    """Choose a part size: 4 MiB up to 1 TiB, then more, so that tables stay small."""
    for size in PART_SIZES:
        if size >= DEFAULT_PART_SIZE and size_bytes <= size * _PARTS_AT_DEFAULT_SIZE:
            return size
    return PART_SIZES[-1]


def plan_layout(files: Sequence[SourceFile], part_size: int) -> Layout:
    """Place ``files``: those of a part or more on part boundaries, then the others packed.

    Both in code-point order.  The end is padded with Padmé, to whole parts.
    """
    ordered = sorted(files, key=lambda file: file.name)
    placed: list[Placed] = []
    end = 0
    for file in ordered:
        if file.size_bytes >= part_size:
            placed.append(Placed(file=file, offset=end))
            end += -(-file.size_bytes // part_size) * part_size
    for file in ordered:
        if file.size_bytes < part_size:
            placed.append(Placed(file=file, offset=end))
            end += file.size_bytes
    placed.sort(key=lambda p: p.name)
    return Layout(
        part_size_bytes=part_size, part_count=padded_parts(end, part_size), files=tuple(placed)
    )


def runs_of(extents: Sequence[Extent], segments: Segments, part_count: int) -> list[range]:
    """Cut the parts into runs that can be worked on side by side; no file lies in two of them."""
    runs: list[range] = []
    for extent in sorted(extents, key=lambda e: e.offset):
        parts = segments.parts_of(extent)
        end = runs[-1].stop if runs else 0
        if not parts:
            continue
        if parts.start < end:
            runs[-1] = range(runs[-1].start, max(end, parts.stop))
            continue
        if parts.start > end:
            runs.append(range(end, parts.start))
        runs.append(parts)
    end = runs[-1].stop if runs else 0
    return [*runs, range(end, part_count)] if end < part_count else runs


def longest_first(runs: Sequence[range]) -> list[range]:
    """Begin with the longest run, lest one core finish it alone: a file is hashed in order."""
    return sorted(runs, key=len, reverse=True)


def interleave(runs: Sequence[range], width: int) -> Iterator[int]:
    """Order parts so that ``width`` runs advance side by side, each in its own order."""
    waiting = iter(runs)
    active = [iter(run) for _, run in zip(range(width), waiting, strict=False)]
    while active:
        for run in list(active):
            index = next(run, None)
            if index is not None:
                yield index
                continue
            active.remove(run)
            if (another := next(waiting, None)) is not None:
                active.append(iter(another))
