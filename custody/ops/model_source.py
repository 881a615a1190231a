"""Where sealing reads a model from: files on disk, or whatever else gives segments."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from custody.errors import CustodyError, Refused
from custody.ops.landing import disk_errors
from custody.ops.linux import OldFile
from custody.ops.model_files import (
    DIRECTORY,
    Identity,
    Layout,
    Placed,
    Segment,
    Segments,
    SourceFile,
    open_beneath,
)


class PlainSource(Protocol):
    """What is sealed, segment by segment; called from several threads."""

    def read(self, segment: Segment, view: memoryview) -> None:
        """Fill ``view`` with one segment; it may be asked for again until it is released."""

    def release(self, segments: Sequence[Segment]) -> None:
        """Be told that these segments are not read any more."""

    def finish(self) -> None:
        """See, when all was read, that nothing has changed."""


class SourceFiles:
    """Opens the files of a scanned model for reading, and notices when one has changed."""

    def __init__(self, model: Path) -> None:
        """Open the directory; raises `Unavailable`."""
        self._model = model
        with disk_errors(model):
            self._root = os.open(model, DIRECTORY)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._root)

    def open(self, file: SourceFile) -> int:
        """Open one file; raises ``Refused("model.changed")`` where it is not the scanned one."""
        try:
            # Not to hang where a FIFO has taken the file's place.
            fd = open_beneath(self._root, file.name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise self.changed(file) from error
            with disk_errors(self._model / file.name):
                raise
        try:
            self.check(fd, file)
        except CustodyError:
            os.close(fd)
            raise
        return fd

    def check(self, fd: int, file: SourceFile) -> None:
        """Refuse an open file that is no longer as it was when scanned."""
        # What is read is what is hashed, sealed and signed, so a change cannot slip a byte past
        # the signature; it could make a file that is half one version and half another.
        if Identity.of(os.fstat(fd)) != file.identity:
            raise self.changed(file)

    def read(self, data: OldFile, file: SourceFile, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` on."""
        done = 0
        while done < len(view):
            with disk_errors(self._model / file.name):
                got = data.read(view[done:], offset + done)
            if not got:
                raise self.changed(file)
            done += got

    def changed(self, file: SourceFile) -> Refused:
        """Say that a file is not what it was."""
        return Refused(
            "changed while it was being sealed",
            check="model.changed",
            where=str(self._model / file.name),
            hint="seal again when nothing writes to the model",
        )


class ModelSource:
    """The files of a model: each open from its first part to its last, and checked at both ends."""

    def __init__(self, model: Path, layout: Layout, cut: Segments | None = None) -> None:
        """Open the model's directory; it will be read by parts, or as ``cut`` says."""
        self._source = SourceFiles(model)
        self._files = layout.files
        segments = Segments(layout.files, layout.part_size_bytes) if cut is None else cut
        self._unread = {
            index: len(parts)
            for index, placed in enumerate(layout.files)
            if len(parts := segments.parts_of(placed)) > 1
        }
        self._open: dict[int, tuple[int, OldFile]] = {}
        self._lock = threading.Lock()

    def read(self, segment: Segment, view: memoryview) -> None:
        """Fill ``view`` with one segment."""
        placed = self._files[segment.file]
        if segment.file not in self._unread:
            self._read_whole(placed, view)
            return
        with self._lock:
            if segment.file not in self._open:
                fd = self._source.open(placed.file)
                self._open[segment.file] = fd, OldFile(fd, placed.size_bytes)
            _, data = self._open[segment.file]
        self._source.read(data, placed.file, view, segment.file_offset)

    def release(self, segments: Sequence[Segment]) -> None:
        """Close the files whose last part this was, unchanged to the end."""
        for segment in segments:
            if segment.file in self._unread:
                self._finish(segment.file, self._files[segment.file])

    def finish(self) -> None:
        """See that the files without a byte are still there, and still without."""
        for placed in self._files:
            if not placed.size_bytes:
                os.close(self._source.open(placed.file))

    def changed(self, file: int) -> Refused:
        """Say that a file is not what was read of it before."""
        return self._source.changed(self._files[file].file)

    def close(self) -> None:
        """Close the directory, and what an error left open."""
        for fd, data in self._open.values():
            data.close()
            os.close(fd)
        self._open.clear()
        self._source.close()

    def _read_whole(self, placed: Placed, view: memoryview) -> None:
        fd = self._source.open(placed.file)
        try:
            self._source.read(OldFile(fd, 0), placed.file, view, 0)
            self._source.check(fd, placed.file)
        finally:
            os.close(fd)

    def _finish(self, index: int, placed: Placed) -> None:
        with self._lock:
            self._unread[index] -= 1
            if self._unread[index]:
                return
            fd, data = self._open.pop(index)
        try:
            self._source.check(fd, placed.file)
        finally:
            data.close()
            os.close(fd)
