"""Where frames lie in a model's files.  Format: frames.md."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from custody.ops.model_files import Extent, Segment, Segments


class FrameCut(Segments):
    """Which bytes of which file each frame has.  It has them alone: no frame is in two files."""

    def __init__(self, files: Sequence[Extent], begins: Sequence[int]) -> None:
        """Take files one behind another, and where frames begin in them and the last one ends."""
        self._begins = begins
        self._order = [i for i, file in enumerate(files) if file.size_bytes]
        self._order.sort(key=lambda i: files[i].offset)
        self._starts = [files[i].offset for i in self._order]

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._begins) - 1

    def of_part(self, index: int) -> list[Segment]:
        """Return the one segment of frame ``index``."""
        begin, end = self._begins[index], self._begins[index + 1]
        n = bisect_right(self._starts, begin) - 1
        return [Segment(self._order[n], begin - self._starts[n], 0, end - begin)]

    def parts_of(self, extent: Extent) -> range:
        """Return the frames of a file."""
        if not extent.size_bytes:
            return range(0)
        first = bisect_left(self._begins, extent.offset)
        return range(first, bisect_left(self._begins, extent.offset + extent.size_bytes))
