"""Where the sealed parts come from that are checked or opened one and all: a bundle's payload.

Unlike `part_source` it holds the whole table against its root, which the manifest has.  Format:
parts.md, "Verifying", steps 1 to 4 and 7.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, Self

from custody.crypto.parts import Row, open_part, row_digest
from custody.crypto.secret import Octets
from custody.errors import Refused
from custody.formats.manifest import Core
from custody.formats.parts import (
    PARTS,
    PAYLOAD,
)
from custody.ops.landing import disk_errors
from custody.ops.linux import OldFile
from custody.ops.memory import zero
from custody.ops.part_source import check_payload_size, open_regular, read_table


class SealedSource(Protocol):
    """Where the ciphertext of parts comes from; called from several threads."""

    def row(self, index: int) -> Row:
        """Return a part's row, which the manifest vouches for."""

    def read(self, index: int, part: memoryview) -> None:
        """Fill ``part`` with a part's ciphertext, of which nothing is believed yet."""

    def bad(self, index: int) -> Refused:
        """Say that a part is not the one that was sealed."""


class PayloadSource:
    """A bundle's ``payload`` and its ``parts``, whose root is the manifest's."""

    def __init__(self, bundle: Path, core: Core) -> None:
        """Open both; raises what `check_payload` does."""
        self._core = core
        self._table = read_table(bundle / PARTS, core)
        self._path = bundle / PAYLOAD
        self._fd, size = open_regular(self._path)
        try:
            check_payload_size(self._path, size, core)
        except Refused:
            os.close(self._fd)
            raise
        self._file = OldFile(self._fd, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        os.close(self._fd)

    def row(self, index: int) -> Row:
        """Return a part's row."""
        return self._table.row(index)

    def read(self, index: int, part: memoryview) -> None:
        """Fill ``part`` with a part's ciphertext, unverified; shorter than it was: `Refused`."""
        size = self._core.part_size_bytes
        done = 0
        with disk_errors(self._path):
            while done < size and (got := self._file.read(part[done:], index * size + done)):
                done += got
        if done < size:
            raise self.bad(index)

    def bad(self, index: int) -> Refused:
        """Say that a part is not the one that was sealed."""
        return Refused(
            f"part {index} is not the one that was sealed",
            check="part.digest",
            where=str(self._path),
            hint="fetch it again: any copy that matches will do",
        )


def check_part(source: SealedSource, core: Core, index: int, part: memoryview) -> None:
    """Refuse a part's ciphertext whose digest is not its row's (``part.digest``)."""
    row = source.row(index)
    if row_digest(core.part_digest, index, row.salt, part, row.tag) != row.digest:
        raise source.bad(index)


def decrypt_part(
    source: SealedSource, core: Core, cek: Octets, index: int, buffer: memoryview
) -> None:
    """Read and open a part (of part size + 16 bytes), or refuse it by what is wrong with it."""
    part, row = buffer[: core.part_size_bytes], source.row(index)
    source.read(index, part)
    try:
        payload_id = bytes.fromhex(core.payload_id)
        open_part(cek, payload_id, index, buffer, salt=row.salt, tag=row.tag)
    except Refused:
        # Damaged on its way, or sealed so?  The row's digest tells, and is not needed before: the
        # tag is vouched for by the root just as the digest is.
        source.read(index, part)
        try:
            check_part(source, core, index, part)
        finally:
            zero(buffer)
        raise
