"""The pieces a reader opens, each verified by itself: parts, or frames of a compressed model.

Formats: parts.md, "Verifying"; frames.md, "Verifying".
"""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from typing import Protocol

from custody.crypto.parts import TAG_BYTES, Row, open_part, open_part_into, row_digest
from custody.errors import CustodyError, Refused
from custody.formats.contents import Contents
from custody.formats.frames import FrameTable
from custody.formats.manifest import Core
from custody.formats.parts import plaintext_digest
from custody.ops.base_source import BaseParts
from custody.ops.frame_opener import FrameOpener
from custody.ops.memory import SecretMemory, zero
from custody.ops.part_cache import PartCache
from custody.ops.part_map import PartMap
from custody.ops.part_source import PartSource

#: What parts that frames are cut from may take, unless that were below two.
_PARTS_BYTES = 64 << 20


class Pieces(Protocol):
    """What all files of a bundle are cut into, and opened by; from several threads at once."""

    @property
    def word(self) -> str:
        """What one is called."""

    @property
    def largest_bytes(self) -> int:
        """The size of the largest."""

    def size_of(self, index: int) -> int:
        """Return the size of one."""

    def cut(self, begin: int, size_bytes: int) -> Iterator[tuple[int, int, int]]:
        """Cut a stretch of the plaintext: (piece, offset in it, bytes)."""

    def open_in_place(self, index: int, buffer: memoryview) -> None:
        """Open one into the beginning of a buffer of the largest size + 16 bytes; or raise."""

    def open_apart(self, index: int, target: memoryview) -> None:
        """Open one into memory of exactly its size, or raise `Refused` and leave zeros."""

    def close(self) -> None:
        """Zero what was kept."""


class Parts:
    """Parts, as pieces of whatever they were cut from."""

    word = "part"

    def __init__(
        self,
        source: PartSource,
        contents: Contents,
        core: Core,
        key: SecretMemory,
        *,
        base: BaseParts | None = None,
        workers: int,
    ) -> None:
        """Take the source of parts, the CEK, and a delta's base; all of them stay the caller's."""
        self._source = source
        self._base = base
        self._map = PartMap.of(contents, core)
        self._algorithm = core.part_digest
        self._payload_id = bytes.fromhex(core.payload_id)
        self._key = key
        self._workers = workers
        # What is read aside is ciphertext, so these buffers need neither lock nor wiping.
        self._aside: list[memoryview] = []
        self.largest_bytes = core.part_size_bytes

    def size_of(self, index: int) -> int:
        """Return the size of all of them."""
        return self.largest_bytes

    def cut(self, begin: int, size_bytes: int) -> Iterator[tuple[int, int, int]]:
        """Cut a stretch of the plaintext: (part, offset in it, bytes)."""
        end = begin + size_bytes
        while begin < end:
            index, offset = divmod(begin, self.largest_bytes)
            size = min(self.largest_bytes - offset, end - begin)
            yield index, offset, size
            begin += size

    def open_in_place(self, index: int, buffer: memoryview) -> None:
        """Open a part into memory of part size + 16 bytes."""
        part = buffer[: self.largest_bytes]
        place = self._map.carried(index)
        if place is None:
            self._take(index, part)
            return
        row = self._read(place, part)
        open_part(self._key.view, self._payload_id, place, buffer, salt=row.salt, tag=row.tag)

    def open_apart(self, index: int, target: memoryview) -> None:
        """Open a part into memory that has no room for its tag: read aside, decrypt there."""
        place = self._map.carried(index)
        if place is None:
            self._take(index, target)
            return
        try:
            sealed = self._aside.pop()
        except IndexError:
            sealed = memoryview(bytearray(self.largest_bytes + TAG_BYTES))
        try:
            row = self._read(place, sealed[: self.largest_bytes])
            open_part_into(
                self._key.view,
                self._payload_id,
                place,
                sealed,
                target,
                salt=row.salt,
                tag=row.tag,
            )
        finally:
            if len(self._aside) < self._workers:
                self._aside.append(sealed)

    def close(self) -> None:
        """Let go of the buffers."""
        self._aside.clear()

    def _take(self, index: int, part: memoryview) -> None:
        """Put a part together from the base, which verifies it."""
        if self._base is None:
            raise ValueError("a delta, and no base to take its parts from")
        try:
            self._base.read(index, part)
        except CustodyError:
            # Whatever lies in that directory, nobody has vouched for it.
            zero(part)
            raise

    def _read(self, place: int, part: memoryview) -> Row:
        """Fill ``part`` with the very ciphertext that was sealed, or raise and leave zeros."""
        # A tag would do against whoever has not the key.  Another host that was let in has it, and
        # can make another part with the same tag; in a whole opening SHA-256 of the file tells.
        row = self._source.row(place)
        self._source.read(place, part)
        found = row_digest(self._algorithm, place, row.salt, part, row.tag)
        if not compare_digest(found, row.digest):
            zero(part)
            raise Refused(f"part {place} is not the one that was sealed", check="part.digest")
        return row


class Frames:
    """Frames, each of one file, expanded from the parts that they are stored in."""

    word = "frame"

    def __init__(self, table: FrameTable, parts: Parts, core: Core, *, workers: int) -> None:
        """Take over ``parts``; raises `Unavailable` without the extra ``compress``."""
        size = parts.largest_bytes
        self._table = table
        self._parts = parts
        self._algorithm = core.part_digest
        # A frame lies in two parts at most, and its neighbours want the same ones.
        slots = max(2, min(workers + 2, _PARTS_BYTES // size))
        self._cache = PartCache(size, parts.open_in_place, slots=slots)
        self._opener = FrameOpener(table, part_size_bytes=size, part=self._cache.part)
        self.largest_bytes = table.largest_bytes

    def size_of(self, index: int) -> int:
        """Return the size of a frame's plaintext."""
        return self._table.begins[index + 1] - self._table.begins[index]

    def cut(self, begin: int, size_bytes: int) -> Iterator[tuple[int, int, int]]:
        """Cut a stretch of the plaintext: (frame, offset in it, bytes)."""
        end, begins = begin + size_bytes, self._table.begins
        index = self._table.at(begin)
        while begin < end:
            stop = min(begins[index + 1], end)
            yield index, begin - begins[index], stop - begin
            begin, index = stop, index + 1

    def open_in_place(self, index: int, buffer: memoryview) -> None:
        """Open a frame into the beginning of a buffer."""
        self.open_apart(index, buffer[: self.size_of(index)])

    def open_apart(self, index: int, target: memoryview) -> None:
        """Open a frame into memory of exactly its size."""
        self._opener.open_into(index, target)
        digest = plaintext_digest(self._algorithm, target)
        if not compare_digest(digest, self._table.digest(index)):
            zero(target)
            raise Refused(
                f"frame {index} is not the plaintext that the contents describe",
                check="frame.plaintext",
            )

    def close(self) -> None:
        """Zero the memory that frames were opened in, and the parts."""
        self._opener.close()
        self._cache.close()
        self._parts.close()
