"""Open single frames of a compressed payload, from opened parts.  Format: frames.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from custody.errors import Malformed, Refused, Unavailable
from custody.formats.frames import FrameTable
from custody.ops.memory import zero

if TYPE_CHECKING:
    from custody.ops.frame_codec import FrameCodec

#: Gives an opened part, which stays as it is until the block ends.
Part = Callable[[int], AbstractContextManager[memoryview]]


class FrameOpener:
    """Opens any frame of a payload, in several threads at once."""

    def __init__(self, table: FrameTable, *, part_size_bytes: int, part: Part) -> None:
        """Take the frames, and what gives the parts they lie in.

        Raises `Unavailable` where NumPy or zstandard is not installed.
        """
        self._table = table
        self._size = part_size_bytes
        self._part = part
        self._make = _codecs()
        self._free: list[FrameCodec] = []

    def open_into(self, index: int, target: memoryview) -> None:
        """Fill ``target``, of a frame's size, with its plaintext, whose digest is not looked at.

        Raises what opening its parts does, and ``Refused("frame.stored")``, after which
        ``target`` is zeros.
        """
        frame = self._table[index]
        part, begin = divmod(self._table.place(index), self._size)
        end = begin + frame.stored_bytes
        with self._codec() as codec:
            try:
                if end <= self._size:
                    with self._part(part) as opened:
                        codec.expand(frame, opened[begin:end], target)
                    return
                # No frame is larger than a part, so it ends in the next.
                stored, cut = codec.room[: frame.stored_bytes], self._size - begin
                with self._part(part) as opened:
                    stored[:cut] = opened[begin:]
                with self._part(part + 1) as opened:
                    stored[cut:] = opened[: end - self._size]
                codec.expand(frame, stored, target)
            except Malformed as error:
                zero(target)
                raise Refused(
                    f"frame {index} is stored as nothing it could be: {error.reason}",
                    check="frame.stored",
                ) from error

    def close(self) -> None:
        """Zero the memory that frames were opened in."""
        while self._free:
            self._free.pop().close()

    @contextmanager
    def _codec(self) -> Iterator[FrameCodec]:
        """Give a codec that no other thread has."""
        try:
            codec = self._free.pop()
        except IndexError:
            codec = self._make(self._table.largest_bytes)
        try:
            yield codec
        finally:
            self._free.append(codec)


def _codecs() -> type[FrameCodec]:
    try:
        # An extra: whoever opens what is not compressed does without.
        from custody.ops.frame_codec import FrameCodec  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(
            f"this model is compressed, and {error.name} is not installed",
            hint="pip install 'custody[compress]'",
        ) from error
    return FrameCodec
