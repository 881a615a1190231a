"""Where a reader gets sealed parts from: a bundle's directory, one part at a time.

The table of parts is read whole, at the beginning, and held against the root that the publisher
signed: a row is what tells a part from one that somebody else with the key has made.  It has
12 MiB for 700 GB.  Format: parts.md.
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
from custody.formats.parts import (
    PARTS,
    PAYLOAD,
    PartTable,
    check_parts_size,
    decode_parts,
)
from custody.ops.landing import disk_errors


class PartSource(Protocol):
    """Sealed parts; used by several threads at once."""

    @property
    def where(self) -> str:
        """What an error says is wrong: a path or an address."""

    def row(self, index: int) -> Row:
        """Return the row of part ``index``, which the manifest vouches for."""

    def read(self, index: int, buffer: memoryview) -> None:
        """Fill ``buffer``, of a part's size, with what should be part ``index``."""

    def close(self) -> None:
        """Let go of it."""


class LocalParts:
    """The parts of a bundle on this machine's disk."""

    def __init__(self, bundle: Path, core: Core) -> None:
        """Open ``payload`` and ``parts`` in the directory ``bundle``.

        Raises ``Refused`` (``payload.size``, ``parts.size``, ``parts.root``), `Incomplete` where
        one is missing.
        """
        self._core = core
        self._payload_path = bundle / PAYLOAD
        self._counting = threading.Lock()
        self._payload, payload_bytes = open_regular(self._payload_path)
        try:
            check_payload_size(self._payload_path, payload_bytes, core)
            self._table = read_table(bundle / PARTS, core)
        except BaseException:
            os.close(self._payload)
            raise
        self.bytes_read = core.part_count * ROW_BYTES

    @property
    def where(self) -> str:
        """The payload's path."""
        return str(self._payload_path)

    def row(self, index: int) -> Row:
        """Return one row."""
        return self._table.row(index)

    def read(self, index: int, buffer: memoryview) -> None:
        """Read one part's ciphertext, if it is that."""
        offset, done = index * self._core.part_size_bytes, 0
        with disk_errors(self._payload_path):
            while done < len(buffer) and (
                got := os.preadv(self._payload, [buffer[done:]], offset + done)
            ):
                done += got
        with self._counting:
            self.bytes_read += done
        if done < len(buffer):
            raise Refused(
                f"ends at byte {offset + done}, and had more when it was opened",
                check="payload.size",
                where=str(self._payload_path),
            )

    def close(self) -> None:
        """Close the payload."""
        os.close(self._payload)


def read_table(path: Path, core: Core) -> PartTable:
    """Read the file ``parts``; its root is the manifest's, or it is refused."""
    fd, size = open_regular(path)
    with disk_errors(path), os.fdopen(fd, "rb") as file:
        try:
            check_parts_size(size, part_count=core.part_count)
            data = file.read(core.part_count * ROW_BYTES + 1)
            return decode_parts(data, part_count=core.part_count, parts_root=core.parts_root)
        except Refused as error:
            raise Refused(error.reason, check=error.check, where=str(path)) from error


def check_payload_size(path: Path, size_bytes: int, core: Core) -> None:
    """Refuse a payload that has not the manifest's size."""
    wanted = core.part_count * core.part_size_bytes
    if size_bytes != wanted:
        raise Refused(
            f"has {size_bytes} bytes where the manifest says {wanted}",
            check="payload.size",
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
