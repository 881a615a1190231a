"""Where each part of a model's plaintext comes from: the payload, or files of a base.

Format: contents.md, "Deltas".  Parts are numbered as they are cut from the plaintext; the carried
ones among them, in their order, are the payload's.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self

import msgspec

from custody.crypto.parts import DIGEST_BYTES, MAX_PARTS
from custody.errors import Refused
from custody.formats.contents import Base, Contents
from custody.formats.manifest import Core
from custody.ops.model_files import Extent, Layout

#: Below zero: the parts taken, in their order.
_FIRST_TAKEN = -1


class Run(Protocol):
    """A stretch of the plaintext, in bytes."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102


class Piece(msgspec.Struct, frozen=True):
    """The bytes of one taken part that lie together in one file of the base."""

    file: int
    file_offset: int
    part_offset: int
    size_bytes: int


class PartMap:
    """Which parts are carried, as what, and what the others are put together from."""

    def __init__(self, part_count: int, part_size_bytes: int, base: Base | None = None) -> None:
        """Take a base whose runs end within the parts."""
        self._size = part_size_bytes
        self._runs = base.taken if base else ()
        self._ends = [run.offset + run.size_bytes for run in self._runs]
        self._places: Sequence[int] = range(part_count)
        self.carried_count = part_count
        if base:
            self._places = array("l", [0]) * part_count
            for run in self._runs:
                parts = range_of(run, part_size_bytes)
                self._places[parts.start : parts.stop] = array("l", [_FIRST_TAKEN]) * len(parts)
            place = taken = 0
            for index, mark in enumerate(self._places):
                if mark == _FIRST_TAKEN:
                    self._places[index] = _FIRST_TAKEN - taken
                    taken += 1
                else:
                    self._places[index] = place
                    place += 1
            self.carried_count = place

    @classmethod
    def of_layout(cls, layout: Layout) -> Self:
        """Take it from where a model is about to be sealed."""
        return cls(layout.part_count, layout.part_size_bytes, layout.base)

    @classmethod
    def of(cls, contents: Contents, core: Core) -> Self:
        """Read it from contents that fit their core.

        Raises `Refused` where they do not: ``contents.parts``, ``contents.extent``,
        ``contents.base``, ``contents.frames``.
        """
        size = core.part_size_bytes
        taken = len(contents.part_digests or b"") // DIGEST_BYTES
        # Counted before a table of them is made: runs may promise more than anybody has.
        if taken != (told := _touched(contents.base, size)):
            raise Refused(f"{told} parts are taken, {taken} have a digest", check="contents.parts")
        count = core.part_count + taken
        if count > MAX_PARTS:
            raise Refused(f"a model has {MAX_PARTS} parts at most", check="contents.parts")
        table = contents.frame_table()
        if (contents.end if table is None else table.stored_bytes) > count * size:
            raise Refused("a file lies outside the parts", check="contents.extent")
        # So that each lies in one part or two, and readers can say what memory that takes.
        if table and table.largest_bytes > size:
            raise Refused("a frame is larger than a part", check="contents.frames")
        found = cls(count, size, contents.base)
        if contents.base:
            for begin, end in uncovered(contents.files, contents.base.taken):
                for part in range(begin // size, (end - 1) // size + 1):
                    if found.carried(part) is None:
                        raise Refused(f"part {part} is taken in half", check="contents.base")
        return found

    def __len__(self) -> int:
        """Count the parts of the plaintext."""
        return len(self._places)

    def carried(self, index: int) -> int | None:
        """Return which part of the payload a part is; None where it is taken."""
        place = self._places[index]
        return None if place <= _FIRST_TAKEN else place

    def taken(self) -> Iterator[int]:
        """Return the parts that are taken, in order."""
        return (index for index, place in enumerate(self._places) if place <= _FIRST_TAKEN)

    def taken_as(self, index: int) -> int:
        """Return how many parts are taken before ``index``, which is taken too."""
        return _FIRST_TAKEN - self._places[index]

    def pieces(self, index: int) -> list[Piece]:
        """Return what a part is put together from, in order of their place in it."""
        begin = index * self._size
        end = begin + self._size
        found = []
        for n in range(bisect_right(self._ends, begin), len(self._runs)):
            run = self._runs[n]
            low, high = max(begin, run.offset), min(end, self._ends[n])
            if low >= high:
                break
            into = low - run.offset
            found.append(Piece(run.file, run.file_offset + into, low - begin, high - low))
        return found


def range_of(run: Run, part_size_bytes: int) -> range:
    """Return the parts that a run, not an empty one, has bytes in."""
    last = (run.offset + run.size_bytes - 1) // part_size_bytes
    return range(run.offset // part_size_bytes, last + 1)


def uncovered(files: Iterable[Extent], runs: Sequence[Run]) -> Iterator[tuple[int, int]]:
    """Return where files have bytes and no run has: begin and end.  Runs are in order."""
    at = 0
    for file in sorted((f for f in files if f.size_bytes), key=lambda f: f.offset):
        begin, end = file.offset, file.offset + file.size_bytes
        while at < len(runs) and runs[at].offset + runs[at].size_bytes <= begin:
            at += 1
        n = at
        while begin < end and n < len(runs) and runs[n].offset < end:
            if begin < runs[n].offset:
                yield begin, runs[n].offset
            begin = runs[n].offset + runs[n].size_bytes
            n += 1
        if begin < end:
            yield begin, end


def _touched(base: Base | None, part_size_bytes: int) -> int:
    """Count the parts that runs, in order, have bytes in."""
    count, after = 0, 0
    for run in base.taken if base else ():
        parts = range_of(run, part_size_bytes)
        count += parts.stop - max(after, parts.start)
        after = parts.stop
    return count
