"""Where opening writes a model to: new files in a directory, or whatever else takes segments."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import msgspec

from custody.errors import Refused
from custody.formats.contents import Contents, File
from custody.formats.manifest import Core
from custody.ops.ahead import Ahead
from custody.ops.frame_cut import FrameCut
from custody.ops.landing import disk_errors
from custody.ops.linux import NewFile, is_large
from custody.ops.model_files import DIRECTORY, Segment, Segments, open_beneath
from custody.ops.pipeline import zero


class PlainSink(Protocol):
    """What takes an opened model, segment by segment; called from several threads."""

    def left(self, segments: Sequence[Segment], part: memoryview) -> bool:
        """Fill ``part`` with what an earlier run left of it; False where that is not all.

        Nothing of it is believed.
        """

    def write(self, segment: Segment, view: memoryview) -> None:
        """Take one segment of one file."""

    def release(self, segments: Sequence[Segment]) -> None:
        """Be told that these segments are written."""


class _Open(msgspec.Struct, frozen=True):
    fd: int
    out: NewFile


class ModelFiles:
    """The files being written, each open from its first part to its last.

    In a directory where an earlier run left files it goes on with those.
    """

    def __init__(
        self, directory: Path, contents: Contents, core: Core, *, ahead: Ahead | None = None
    ) -> None:
        """Take a directory nobody else looks at, and what was reserved for its largest files."""
        self._ahead = ahead
        self._path = directory
        self._files = contents.files
        table = contents.frame_table()
        segments = (
            Segments(contents.files, core.part_size_bytes)
            if table is None
            else FrameCut(contents.files, table.begins)
        )
        self._unwritten = {
            index: len(parts)
            for index, file in enumerate(contents.files)
            if len(parts := segments.parts_of(file)) > 1
        }
        self._behind = is_large(core.part_size_bytes * core.part_count)
        self._left: dict[str, int] = {}
        self._open: dict[int, _Open] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with disk_errors(self._path):
            self._root = os.open(self._path, DIRECTORY)
            try:
                self._left = self._find_left()
                self._make_directories()
                for file in self._files:
                    if not file.size_bytes:
                        os.close(self._create(file.name))
            except (OSError, Refused):
                os.close(self._root)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        for entry in self._open.values():
            entry.out.close()
            os.close(entry.fd)
        os.close(self._root)

    def left(self, segments: Sequence[Segment], part: memoryview) -> bool:
        """Fill ``part`` with what an earlier run left of it; False where that is not all."""
        if not segments or not all(self._may_hold(segment) for segment in segments):
            return False
        end = 0
        for segment in segments:
            zero(part[end : segment.part_offset])
            end = segment.part_offset + segment.size_bytes
            if not self._read(segment, part[segment.part_offset : end]):
                return False
        zero(part[end:])
        return True

    def write(self, segment: Segment, view: memoryview) -> None:
        """Write one segment of one file."""
        with disk_errors(self._path):
            if segment.file not in self._unwritten:
                fd = self._create(self._files[segment.file].name)
                try:
                    NewFile(fd, 0).write(view, 0)
                finally:
                    os.close(fd)
                return
            self._opened(segment.file).out.write(view, segment.file_offset)

    def release(self, segments: Sequence[Segment]) -> None:
        """Close the files whose last part this was."""
        for segment in segments:
            if segment.file not in self._unwritten:
                continue
            with self._lock:
                self._unwritten[segment.file] -= 1
                done = not self._unwritten[segment.file]
                entry = self._open.pop(segment.file, None) if done else None
            if entry is not None:
                with disk_errors(self._path):
                    entry.out.close()
                    os.close(entry.fd)

    def _may_hold(self, segment: Segment) -> bool:
        size = self._left.get(self._files[segment.file].name, 0)
        return size >= segment.file_offset + segment.size_bytes

    def _read(self, segment: Segment, view: memoryview) -> bool:
        with disk_errors(self._path):
            if segment.file in self._unwritten:
                return _read_into(self._opened(segment.file).fd, view, segment.file_offset)
            fd = self._create(self._files[segment.file].name)
            try:
                return _read_into(fd, view, 0)
            finally:
                os.close(fd)

    def _opened(self, index: int) -> _Open:
        with self._lock:
            if index not in self._open:
                file = self._files[index]
                fd = self._reserved(file)
                if fd is None:
                    fd = self._create(file.name)
                out = NewFile(fd, file.size_bytes, written_behind=self._behind)
                self._open[index] = _Open(fd, out)
            return self._open[index]

    def _reserved(self, file: File) -> int | None:
        """Make a file of one that was reserved ahead, if there is any."""
        if self._ahead is None or file.name in self._left:
            return None
        folder, _, name = file.name.rpartition("/")
        parent = open_beneath(self._root, folder, DIRECTORY)
        try:
            return self._ahead.take(name, file.size_bytes, dir_fd=parent)
        finally:
            os.close(parent)

    def _create(self, name: str) -> int:
        how = 0 if name in self._left else os.O_EXCL
        return open_beneath(self._root, name, os.O_RDWR | os.O_CREAT | how)

    def _find_left(self) -> dict[str, int]:
        """Return the sizes of the files that an earlier run left; they must be this model's."""
        expected = {file.name: file.size_bytes for file in self._files}
        folders = _folders(expected)
        found: dict[str, int] = {}
        for folder, below, names in os.walk(self._path):
            for path in (Path(folder) / name for name in [*below, *names]):
                about = path.lstat()
                name = path.relative_to(self._path).as_posix()
                if stat.S_ISDIR(about.st_mode) and name in folders:
                    continue
                ours = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
                # Whatever else lies here would land under the model's name beside it.
                if not ours or about.st_size > expected.get(name, -1):
                    raise Refused(
                        "not of this model, in what an interrupted run left",
                        check="target.unfinished",
                        where=str(path),
                        hint="remove the directory it lies in and open again",
                    )
                found[name] = about.st_size
        return found

    def _make_directories(self) -> None:
        for directory in sorted(_folders(file.name for file in self._files)):
            with suppress(FileExistsError):
                os.mkdir(directory.encode(), mode=0o700, dir_fd=self._root)


def _folders(names: Iterable[str]) -> set[str]:
    folders: set[str] = set()
    for name in names:
        pieces = name.split("/")
        folders.update("/".join(pieces[:n]) for n in range(1, len(pieces)))
    return folders


def _read_into(fd: int, view: memoryview, offset: int) -> bool:
    done = 0
    while done < len(view) and (got := os.preadv(fd, [view[done:]], offset + done)):
        done += got
    return done == len(view)
