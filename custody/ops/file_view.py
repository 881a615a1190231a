"""One file of a bundle as Python's raw binary stream."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from custody.formats.contents import File

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from custody.ops.reader import Reader


class FileView(io.RawIOBase):
    """A seekable stream over one file; for readers that want to buffer, or not, themselves."""

    def __init__(self, reader: Reader, file: File) -> None:
        """Begin at byte 0."""
        self._reader = reader
        self._file = file
        self._position = 0

    @property
    def name(self) -> str:
        """Name of the file in the bundle."""
        return self._file.name

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; past the end is allowed, as on a disk, and reads nothing."""
        self._check_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError("whence is 0, 1 or 2")
        base = (0, self._position, self._file.size_bytes)[whence]
        if base + offset < 0:
            raise ValueError("a position is not negative")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``, less only at the end of the file."""
        self._check_open()
        got = self._reader.read_into(self._file.name, self._position, buffer)
        self._position += got
        return got

    def readall(self) -> bytes:
        """Read the rest."""
        self._check_open()
        data = self._reader.read(self._file.name, self._position)
        self._position += len(data)
        return data

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
