"""Which parts a delta carries, and what the others are put together from."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.formats.contents import Base, Taken
from custody.ops.part_map import PartMap, uncovered

SIZE = 7
PARTS = 9
#: Two numbers make a stretch.
STRETCHES = st.sets(st.integers(0, SIZE * PARTS), max_size=12).map(
    lambda ends: list(zip(*[iter(sorted(ends))] * 2, strict=False))
)


@dataclass(frozen=True)
class Stretch:
    """A file's place in the plaintext."""

    name: str
    offset: int
    size_bytes: int


def _base(stretches: list[tuple[int, int]]) -> Base:
    return Base(
        manifest="00" * 32,
        files=("a",),
        taken=tuple(
            Taken(offset=begin, size_bytes=end - begin, file=0, file_offset=1000 + begin)
            for begin, end in stretches
        ),
    )


def _bytes(stretches: list[tuple[int, int]]) -> set[int]:
    return {at for begin, end in stretches for at in range(begin, end)}


@given(STRETCHES.filter(bool))
def test_every_part_is_carried_or_pieced_together(stretches: list[tuple[int, int]]) -> None:
    """A part that no run touches is carried, in order; of any other the pieces are the runs'."""
    found = PartMap(PARTS, SIZE, _base(stretches))
    taken = sorted({at // SIZE for at in _bytes(stretches)})
    carried = [index for index in range(PARTS) if index not in taken]
    assert taken == list(found.taken())
    assert list(range(len(carried))) == [found.carried(index) for index in carried]
    assert (len(carried), PARTS) == (found.carried_count, len(found))
    for index in range(PARTS):
        wanted = {(at - index * SIZE, 1000 + at) for at in _bytes(stretches) if at // SIZE == index}
        pieces = found.pieces(index)
        assert wanted == {
            (piece.part_offset + n, piece.file_offset + n)
            for piece in pieces
            for n in range(piece.size_bytes)
        }
        assert sorted(pieces, key=lambda piece: piece.part_offset) == pieces


@given(STRETCHES, STRETCHES)
def test_what_is_not_covered(files: list[tuple[int, int]], runs: list[tuple[int, int]]) -> None:
    """Uncovered is exactly what a file has and no run has."""
    extents = [Stretch("", begin, end - begin) for begin, end in files]
    taken = _base(runs).taken if runs else ()
    assert _bytes(files) - _bytes(runs) == _bytes(list(uncovered(extents, taken)))


def test_a_whole_model_carries_every_part() -> None:
    """Without a base each part is where it was cut."""
    found = PartMap(PARTS, SIZE)
    assert list(range(PARTS)) == [found.carried(index) for index in range(PARTS)]
    assert [] == list(found.taken())
    with pytest.raises(IndexError):
        found.carried(PARTS)
