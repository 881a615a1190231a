"""Compress and expand frames: bytes grouped by significance, then Zstandard.  Format: frames.md.

Nearly all that can be saved on trained weights is in the exponents, which lie in every second or
fourth byte among bytes that are noise.  Grouped, they shrink to what their entropy says; and since
there is nothing to be found twice in them, Zstandard's search is turned off, which makes it three
times as fast, and better by a point: what it finds by chance costs more than it saves.

Needs NumPy and zstandard, the extra ``compress``.  Everything here works on one frame, in memory of
its own, with the interpreter's lock released; a codec is for one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from custody.errors import Malformed
from custody.formats.frames import MAX_FRAME_BYTES, Frame, check_zstandard
from custody.ops.memory import SecretMemory

#: A frame that does not get smaller by so much is stored as it is: it is read sooner.
_WORTH = 0.97
_THOROUGH_LEVEL = 3
#: What Zstandard may write of a frame in excess of its plaintext.
_EXCESS_BYTES = 64 << 10

_Bytes = NDArray[np.uint8]
_Whole = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a stretch of a file is to be compressed: see `formats.frames.Frame`.

    ``thorough`` also looks for what is there twice, as in text.
    """

    width: int
    planes: int
    thorough: bool = False


AS_IT_IS = Recipe(0, 0)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a frame is stored as.  ``data`` is the codec's, until its next call."""

    width: int
    planes: int
    data: memoryview


class FrameCodec:
    """Memory and state to compress or expand frames of up to ``largest_bytes``."""

    def __init__(self, largest_bytes: int = MAX_FRAME_BYTES) -> None:
        """Take memory for three frames."""
        self._largest = largest_bytes
        self._memory = [
            SecretMemory(size)
            for size in (largest_bytes, largest_bytes, largest_bytes + _EXCESS_BYTES)
        ]
        self._planes, self._spare, self._out = (memory.view for memory in self._memory)
        self._entropy = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(
                strategy=zstandard.STRATEGY_FAST,
                window_log=17,
                hash_log=6,
                chain_log=6,
                search_log=1,
                min_match=7,
                target_length=0,
                write_content_size=True,
            )
        )
        self._thorough = zstandard.ZstdCompressor(level=_THOROUGH_LEVEL, write_content_size=True)
        self._expander = zstandard.ZstdDecompressor(max_window_size=MAX_FRAME_BYTES)

    def close(self) -> None:
        """Zero the memory.  What the library keeps of its own is not in reach."""
        for memory in self._memory:
            memory.close()

    @property
    def room(self) -> memoryview:
        """Memory to put together in what a frame is stored as, before it is expanded."""
        return self._out

    def compress(self, recipe: Recipe, frame: memoryview) -> Stored:
        """Compress one frame by a recipe; it is stored as it is where that saves little."""
        size, width = len(frame), recipe.width
        # Of nothing the library makes a frame without end.
        if not size or not width or size % width:
            return Stored(0, 0, frame)
        packed, raw_bytes = frame, 0
        if width > 1:
            packed, raw_bytes = self._group(recipe, frame)
        room = self._out[raw_bytes : raw_bytes + len(packed)]
        done = self._compress(packed, room, thorough=recipe.thorough)
        if done is None or raw_bytes + done > _WORTH * size:
            return Stored(0, 0, frame)
        return Stored(width, recipe.planes, self._out[: raw_bytes + done])

    def expand(self, frame: Frame, stored: memoryview, target: memoryview) -> None:
        """Expand one frame into ``target``, of exactly its size.

        Raises `Malformed` where ``stored`` is not what a frame of that row can be stored as;
        ``target`` then holds nothing of use.
        """
        if len(stored) != frame.stored_bytes or len(target) != frame.size_bytes:
            raise ValueError("a frame is expanded from and to memory of its sizes")
        if frame.size_bytes > self._largest:
            raise ValueError("this codec has no memory for so large a frame")
        if not frame.width:
            target[:] = stored
            return
        raw = frame.raw_bytes
        planes = target if frame.width == 1 else self._planes[: frame.packed_bytes]
        self._expand(stored[raw:], planes)
        if frame.width > 1:
            self._ungroup(frame, planes, stored[:raw], target)

    def _compress(self, data: memoryview, room: memoryview, *, thorough: bool) -> int | None:
        """Compress into ``room``; return how many bytes that took, None where it is too small."""
        compressor = self._thorough if thorough else self._entropy
        with compressor.stream_reader(data, size=len(data), read_size=len(data)) as reader:
            done = reader.readinto(room)
            return done if done < len(room) else None

    def _expand(self, data: memoryview, target: memoryview) -> None:
        check_zstandard(data, size_bytes=len(target))
        # All of it is there and its size is written, so the library expands it right into
        # ``target``, and keeps no plaintext in buffers of its own.
        try:
            with self._expander.stream_reader(data, read_size=len(data)) as reader:
                done = reader.readinto(target)
        except zstandard.ZstdError as error:
            raise Malformed("its Zstandard frame cannot be expanded") from error
        if done != len(target):
            raise Malformed("it expands to less than it says")

    def _group(self, recipe: Recipe, frame: memoryview) -> tuple[memoryview, int]:
        """Lay out the planes: those to compress in one piece, the others where they are stored."""
        width, count = recipe.width, len(frame) // recipe.width
        whole = _whole(frame, width)
        spare = _whole(self._spare[: len(frame)], width)
        packed, raw = _array(self._planes), _array(self._out)
        at = {True: 0, False: 0}
        for plane in range(width):
            chosen = bool(recipe.planes >> plane & 1)
            begin = at[chosen]
            at[chosen] += count
            np.right_shift(whole, 8 * plane, out=spare)
            np.copyto((packed if chosen else raw)[begin : begin + count], spare, casting="unsafe")
        return self._planes[: at[True]], at[False]

    def _ungroup(
        self, frame: Frame, packed: memoryview, raw: memoryview, target: memoryview
    ) -> None:
        width, count = frame.width, frame.size_bytes // frame.width
        sources = {True: _array(packed), False: _array(raw)}
        at = {True: 0, False: 0}
        planes: list[_Bytes] = []
        for plane in range(width):
            chosen = bool(frame.planes >> plane & 1)
            planes.append(sources[chosen][at[chosen] : at[chosen] + count])
            at[chosen] += count
        whole = _whole(target, width)
        np.copyto(whole, planes.pop())
        while planes:
            np.left_shift(whole, 8, out=whole)
            np.bitwise_or(whole, planes.pop(), out=whole)


def _array(view: memoryview) -> _Bytes:
    return np.frombuffer(view, dtype=np.uint8)


def _whole(view: memoryview, width: int) -> _Whole:
    """See ``view`` as unsigned integers of ``width`` bytes, the least significant first."""
    return np.frombuffer(view, dtype=f"<u{width}")
