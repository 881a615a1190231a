"""The frames of a compressed model, and how each is stored.  Format: frames.md, version 1."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from custody.crypto.secret import Octets
from custody.errors import Malformed

#: width ‖ planes ‖ u32be size ‖ u32be stored ‖ digest.
ROW_BYTES = 42
MAX_FRAMES = 1 << 24
MAX_FRAME_BYTES = 4 << 20
#: How many planes a frame may be taken apart into; 0 is stored as it is.
WIDTHS = (0, 1, 2, 4, 8)

_ROW = struct.Struct(">BBII32s")
_DIGEST_BYTES = 32

_MAGIC = bytes.fromhex("28b52ffd")
_SINGLE_SEGMENT, _UNUSED, _RESERVED, _CHECKSUM, _DICTIONARY = 0x20, 0x10, 0x08, 0x04, 0x03
_MAX_BLOCK_BYTES = 128 << 10
#: A writer makes a block of 128 KiB, or a few of what is in it.
_MAX_BLOCKS = 8192
_RAW, _REPEATED, _COMPRESSED = 0, 1, 2


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame: ``size_bytes`` of a file, stored as ``stored_bytes``.

    ``planes`` has a bit for each plane that is in the Zstandard frame, the least significant byte
    being plane 0; the others are stored as they are.  ``digest`` (32 bytes) is of the plaintext.
    """

    width: int
    planes: int
    size_bytes: int
    stored_bytes: int
    digest: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.size_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"frames: one has {self.size_bytes} bytes")
        if self.width not in WIDTHS or bool(self.width) != bool(self.planes):
            raise ValueError("frames: one is stored in a way that is not known")
        if self.planes >> self.width or self.size_bytes % (self.width or 1):
            raise ValueError("frames: one has other planes than its width gives")
        # What does not get smaller is stored as it is, so that this has one form.
        if self.width and not self.raw_bytes < self.stored_bytes < self.size_bytes:
            raise ValueError("frames: one is stored in no fewer bytes than it has, or in none")
        if not self.width and self.stored_bytes != self.size_bytes:
            raise ValueError("frames: one is stored as it is, in another size")
        if len(self.digest) != _DIGEST_BYTES:
            raise ValueError("frames: a digest has 32 bytes")

    @property
    def raw_bytes(self) -> int:
        """How much of what is stored are planes as they are; it lies before the rest."""
        if not self.width:
            return self.size_bytes
        return (self.width - self.planes.bit_count()) * (self.size_bytes // self.width)

    @property
    def packed_bytes(self) -> int:
        """How many bytes the Zstandard frame expands to."""
        return self.size_bytes - self.raw_bytes

    def pack(self) -> bytes:
        """Write its row."""
        return _ROW.pack(self.width, self.planes, self.size_bytes, self.stored_bytes, self.digest)


class FrameTable:
    """All frames of a model, in order: of its plaintext, and of where they are stored."""

    def __init__(self, rows: bytes) -> None:
        """Read whole rows, at least one; raises `ValueError` naming what is wrong."""
        if not rows or len(rows) % ROW_BYTES or len(rows) > MAX_FRAMES * ROW_BYTES:
            raise ValueError("frames: not 1 to 2**24 rows of 42 bytes")
        self._rows = rows
        self._begins = array("Q", [0])
        self._places = array("Q", [0])
        self.largest_bytes = 0
        for frame in self._read():
            self._begins.append(self._begins[-1] + frame.size_bytes)
            self._places.append(self._places[-1] + frame.stored_bytes)
            self.largest_bytes = max(self.largest_bytes, frame.size_bytes)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._begins) - 1

    def __getitem__(self, index: int) -> Frame:
        """Return frame ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return _frame(*_ROW.unpack_from(self._rows, index * ROW_BYTES))

    @property
    def size_bytes(self) -> int:
        """How many bytes of plaintext the frames have."""
        return self._begins[-1]

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the payload's plaintext they take."""
        return self._places[-1]

    @property
    def begins(self) -> array[int]:
        """Where each frame begins in the plaintext, and where the last one ends."""
        return self._begins

    def place(self, index: int) -> int:
        """Return where a frame is stored, from the beginning of the payload."""
        return self._places[index]

    def digest(self, index: int) -> bytes:
        """Return the digest of a frame's plaintext (32 bytes)."""
        return self[index].digest

    def at(self, offset: int) -> int:
        """Return the frame that has the plaintext's byte ``offset``."""
        return bisect_right(self._begins, offset) - 1

    def is_edge(self, offset: int) -> bool:
        """Whether a frame begins, or the last one ends, at ``offset``."""
        at = self.at(offset)
        return at >= 0 and self._begins[at] == offset

    def _read(self) -> Iterator[Frame]:
        return (_frame(*row) for row in _ROW.iter_unpack(self._rows))


def _frame(width: int, planes: int, size_bytes: int, stored_bytes: int, digest: bytes) -> Frame:
    return Frame(
        width=width,
        planes=planes,
        size_bytes=size_bytes,
        stored_bytes=stored_bytes,
        digest=digest,
    )


@lru_cache(maxsize=1)
def read_frames(rows: bytes) -> FrameTable:
    """Read rows, as `FrameTable` does: once, however often an opening asks for the same."""
    return FrameTable(rows)


def check_tiled(table: FrameTable, files: list[tuple[int, int]]) -> None:
    """Refuse frames that are not exactly the files' (offset, size), in order of offset.

    No byte without a frame, none in two, no frame in two files: raises `ValueError`.
    """
    ends = [0]
    for offset, size in files:
        if offset != ends[-1]:
            raise ValueError("frames: bytes that belong to no file lie between two")
        ends.append(offset + size)
        if not table.is_edge(ends[-1]):
            raise ValueError("frames: one has bytes of two files, or they end within a file")
    if ends[-1] != table.size_bytes:
        raise ValueError("frames: they go on after the last file")


def check_zstandard(data: Octets, *, size_bytes: int) -> None:
    """Refuse what is not one Zstandard frame of ``size_bytes`` of plaintext, and nothing else.

    RFC 8878 section 3.1.1, with the content's size written, no dictionary, no checksum, and a
    window of 4 MiB at most.  Looks at lengths only, and allocates nothing.  Raises `Malformed`.
    """
    end = _header_end(data, size_bytes)
    last, blocks = False, 0
    while not last:
        blocks += 1
        if blocks > _MAX_BLOCKS:
            raise Malformed(f"it has more than {_MAX_BLOCKS} blocks")
        header = int.from_bytes(data[end : end + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if len(data) - end < 3 or size > _MAX_BLOCK_BYTES or kind > _COMPRESSED:
            raise Malformed("a block of it is cut off, too large or of no known type")
        end += 3 + (1 if kind == _REPEATED else size)
    if end != len(data):
        raise Malformed("it ends before or after its last block does")


def _header_end(data: Octets, size_bytes: int) -> int:
    if len(data) < 6 or data[:4] != _MAGIC:
        raise Malformed("not a Zstandard frame")
    flags = data[4]
    if flags & (_UNUSED | _RESERVED | _CHECKSUM | _DICTIONARY):
        raise Malformed("it has a checksum or a dictionary, or bits that must be zero are not")
    single = bool(flags & _SINGLE_SEGMENT)
    field = (1 if single else 0, 2, 4, 8)[flags >> 6]
    begin = 5 if single else 6
    told = int.from_bytes(data[begin : begin + field], "little") + (256 if field == 2 else 0)
    if not field or len(data) < begin + field or told != size_bytes:
        raise Malformed("it does not say that it expands to what the frame has")
    if not single and _window_bytes(data[5]) > MAX_FRAME_BYTES:
        raise Malformed("its window is larger than any frame")
    return begin + field


def _window_bytes(descriptor: int) -> int:
    base = 1 << (10 + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)
