"""Compressing and expanding single frames."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.errors import Malformed
from custody.formats.frames import Frame, FrameTable
from custody.ops.frame_codec import AS_IT_IS, FrameCodec, Recipe, Stored
from tests.unit.crypto.vectors import Vector, read
from tests.unit.ops.bundles import noise

_VECTORS = [
    vector
    for vector in read("frames/frames.txt", "rows", "stored", "plaintext", "reason")
    if "stored" in vector
]
_LARGEST = 1 << 16


@pytest.fixture(scope="module")
def codec() -> Iterator[FrameCodec]:
    """A codec for frames of 64 KiB."""
    made = FrameCodec(_LARGEST)
    yield made
    made.close()


def _frame(stored: Stored, plaintext: bytes) -> Frame:
    return Frame(
        width=stored.width,
        planes=stored.planes,
        size_bytes=len(plaintext),
        stored_bytes=len(stored.data),
        digest=bytes(32),
    )


def _expanded(codec: FrameCodec, frame: Frame, stored: bytes) -> bytes:
    target = bytearray(b"\xaa" * frame.size_bytes)
    codec.expand(frame, memoryview(stored), memoryview(target))
    return bytes(target)


def floats(count: int, seed: int = 1, *, form: str = "f", keep: int = 4) -> bytes:
    """Normally distributed numbers, as weights are; of each the ``keep`` upper bytes."""
    draw = random.Random(seed)
    packed = struct.pack(f"<{count}{form}", *(draw.gauss(0, 0.04) for _ in range(count)))
    size = struct.calcsize(form)
    return b"".join(packed[n + size - keep : n + size] for n in range(0, len(packed), size))


@pytest.mark.parametrize("vector", _VECTORS, ids=[v["comment"] for v in _VECTORS])
def test_vectors(codec: FrameCodec, vector: Vector) -> None:
    """What a frame is stored as expands to its plaintext, or is malformed and says why."""
    frame = FrameTable(bytes.fromhex(vector["rows"]))[0]
    stored = bytes.fromhex(vector["stored"])
    if "plaintext" in vector:
        assert bytes.fromhex(vector["plaintext"]) == _expanded(codec, frame, stored)
        return
    with pytest.raises(Malformed, match=vector["reason"]):
        _expanded(codec, frame, stored)


_RECIPES = st.one_of(
    st.just(AS_IT_IS),
    st.builds(Recipe, st.just(1), st.just(1), st.booleans()),
    *(
        st.builds(Recipe, st.just(width), st.integers(1, (1 << width) - 1), st.booleans())
        for width in (2, 4, 8)
    ),
)


@settings(deadline=None)
@given(
    _RECIPES,
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda data, n: (data * n)[:_LARGEST], st.binary(min_size=1), st.integers(1, 999)
        ),
        st.builds(floats, st.integers(1, 500)),
    ),
)
def test_expanding_undoes_compressing(codec: FrameCodec, recipe: Recipe, plaintext: bytes) -> None:
    """Any bytes come back by any recipe, as they were, from no more than they took."""
    before = bytearray(plaintext)
    stored = codec.compress(recipe, memoryview(before))
    data = bytes(stored.data)
    assert plaintext == before
    if not plaintext:
        assert b"" == data
        return
    assert plaintext == _expanded(codec, _frame(stored, plaintext), data)
    assert len(data) <= len(plaintext)
    assert stored.width in {0, recipe.width}


@settings(deadline=None)
@given(st.sampled_from([Recipe(1, 1), Recipe(2, 2), Recipe(4, 8)]), st.data())
def test_damage_is_malformed_or_shows(
    codec: FrameCodec, recipe: Recipe, pick: st.DataObject
) -> None:
    """A frame with a byte changed is malformed or expands to its size; nothing else happens."""
    plaintext = floats(2000) if recipe.width > 1 else b"layer.0.weight " * 300
    stored = codec.compress(recipe, memoryview(plaintext))
    data = bytearray(stored.data)
    place = pick.draw(st.integers(0, len(data) - 1))
    data[place] ^= pick.draw(st.integers(1, 255))
    with suppress(Malformed):
        assert len(plaintext) == len(_expanded(codec, _frame(stored, plaintext), bytes(data)))


def test_weights_shrink_to_their_entropy(codec: FrameCodec) -> None:
    """Grouping takes a third off numbers of 16 bits with 8 of exponent, a sixth off those of 32."""
    for keep, recipe, most in ((2, Recipe(2, 2), 0.72), (4, Recipe(4, 8), 0.86)):
        plaintext = floats(_LARGEST // keep, keep=keep)
        grouped = codec.compress(recipe, memoryview(plaintext))
        assert len(grouped.data) < most * len(plaintext)
        plain = len(codec.compress(Recipe(1, 1), memoryview(plaintext)).data)
        assert len(codec.compress(recipe, memoryview(plaintext)).data) < plain


def test_noise_is_stored_as_it_is(codec: FrameCodec) -> None:
    """What does not get smaller is not copied: it is the very memory that was given."""
    plaintext = bytearray(noise(_LARGEST))
    for recipe in (Recipe(1, 1), Recipe(1, 1, thorough=True), Recipe(2, 3), Recipe(4, 8)):
        stored = codec.compress(recipe, memoryview(plaintext))
        assert (0, 0) == (stored.width, stored.planes)
        assert stored.data.obj is plaintext


def test_sizes_are_exact(codec: FrameCodec) -> None:
    """Memory of another size than the row's, and a frame above the codec's, are a mistake."""
    frame = Frame(width=0, planes=0, size_bytes=10, stored_bytes=10, digest=bytes(32))
    for stored, target in ((9, 10), (11, 10), (10, 9), (10, 11)):
        with pytest.raises(ValueError, match="of its sizes"):
            codec.expand(frame, memoryview(bytes(stored)), memoryview(bytearray(target)))
    size = _LARGEST + 1
    large = Frame(width=0, planes=0, size_bytes=size, stored_bytes=size, digest=bytes(32))
    with pytest.raises(ValueError, match="so large"):
        codec.expand(large, memoryview(bytes(size)), memoryview(bytearray(size)))
