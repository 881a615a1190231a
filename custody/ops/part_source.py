"""Where a reader gets sealed parts from: a bundle's directory, one row and one part at a time.

The table of parts is not held against its root here.  That needs all of it (12 MiB for 700 GB), and
what it would prove is proven anyway: a part counts only if its plaintext has the digest in the
contents, which the publisher signed through the manifest, and its key comes from the committed CEK.
A row that was tampered with can make a part fail, as can the payload itself; it can make no part
different.  Format: parts.md.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Protocol

from custody.crypto.parts import ROW_BYTES, Row
from custody.errors import Incomplete, Refused
from custody.formats.manifest import Core
from custody.formats.parts import PARTS, PAYLOAD, check_parts_size
from custody.ops.landing import disk_errors


class PartSource(Protocol):
    """Sealed parts, unverified; used by several threads at once."""

    @property
    def where(self) -> str:
        """What an error says is wrong: a path or an address."""

    def row(self, index: int) -> Row:
        """Return the row of part ``index``."""

    def read(self, index: int, buffer: memoryview) -> None:
        """Fill ``buffer``, of a part's size, with the ciphertext of part ``index``."""

    def close(self) -> None:
        """Let go of it."""


class LocalParts:
    """The parts of a bundle on this machine's disk."""

    def __init__(self, bundle: Path, core: Core) -> None:
        """Open ``payload`` and ``parts`` in the directory ``bundle``.

        Raises ``Refused`` (``payload.size``, ``parts.size``), `Incomplete` where one is missing.
        """
        self._core = core
        self._payload_path = bundle / PAYLOAD
        self._parts_path = bundle / PARTS
        self._counting = threading.Lock()
        self.bytes_read = 0
        self._payload, payload_bytes = open_regular(self._payload_path)
        try:
            self._parts, parts_bytes = open_regular(self._parts_path)
        except BaseException:
            os.close(self._payload)
            raise
        try:
            self._check_sizes(payload_bytes, parts_bytes)
        except Refused:
            self.close()
            raise

    def _check_sizes(self, payload_bytes: int, parts_bytes: int) -> None:
        wanted = self._core.part_count * self._core.part_size_bytes
        if payload_bytes != wanted:
            raise Refused(
                f"has {payload_bytes} bytes where the manifest says {wanted}",
                check="payload.size",
                where=str(self._payload_path),
            )
        try:
            check_parts_size(parts_bytes, part_count=self._core.part_count)
        except Refused as error:
            where = str(self._parts_path)
            raise Refused(error.reason, check=error.check, where=where) from error

    @property
    def where(self) -> str:
        """The payload's path."""
        return str(self._payload_path)

    def row(self, index: int) -> Row:
        """Read one row."""
        row = bytearray(ROW_BYTES)
        self._read(self._parts, self._parts_path, memoryview(row), index * ROW_BYTES)
        return Row.unpack(row)

    def read(self, index: int, buffer: memoryview) -> None:
        """Read one part's ciphertext."""
        offset = index * self._core.part_size_bytes
        self._read(self._payload, self._payload_path, buffer, offset)

    def close(self) -> None:
        """Close both files."""
        os.close(self._payload)
        os.close(self._parts)

    def _read(self, fd: int, path: Path, buffer: memoryview, offset: int) -> None:
        done = 0
        with disk_errors(path):
            while done < len(buffer) and (got := os.preadv(fd, [buffer[done:]], offset + done)):
                done += got
        with self._counting:
            self.bytes_read += done
        if done < len(buffer):
            raise Refused(
                f"ends at byte {offset + done}, and had more when it was opened",
                check=f"{path.name}.size",
                where=str(path),
            )


def open_regular(path: Path) -> tuple[int, int]:
    """Open a file of a bundle for reading; return its descriptor and size."""
    with disk_errors(path):
        try:
            # A FIFO put in its place must not make us wait for ever.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Incomplete("not in the bundle", missing=(path.name,), where=str(path)) from error
        status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise Refused("not a regular file", check=f"{path.name}.size", where=str(path))
    return fd, status.st_size
