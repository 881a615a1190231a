"""Decide how a model is cut into frames, and whether compressing it pays.

The types of tensors are known from the headers of safetensors files; whatever else there is, is
tried on a sample.  No format asks for any of this: a reader takes whatever frames there are.
Needs the extra ``compress``.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from custody.crypto.parts import padded_parts
from custody.formats.frames import MAX_FRAMES
from custody.formats.safetensors import DTYPE_BITS, Header
from custody.ops.frame_codec import AS_IT_IS, FrameCodec, Recipe
from custody.ops.frame_cut import FrameCut
from custody.ops.linux import OldFile
from custody.ops.model_files import Layout, Placed, SourceFile
from custody.ops.model_source import SourceFiles
from custody.ops.progress import Progress, silent
from custody.ops.windows import tensor_header

#: Plaintext of a frame: with half a default part, what is read for one byte is mostly the part.
FRAME_BYTES = 2 << 20
#: What does not get smaller by so much is sealed as it is.
_WORTH = 0.95
#: How much better it must get for grouping bytes, or looking for what is there twice, to pay.
_BETTER = 0.02
#: Each a block of Zstandard's, the stretch that one table of codes is made for.
_SAMPLE_BYTES = 128 << 10
_SAMPLES = 8
#: Tensors below this do not begin a stretch of their own.
_SMALL_BYTES = 64 << 10
#: Tried where no header tells: bytes, then 16- and 32-bit numbers.
_UNKNOWN = 0
_TRIED = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class FramePlan:
    """How a model is cut into frames, and by which of ``recipes`` each is compressed.

    The files of ``layout`` lie one behind another; it has as many parts as all of it should take,
    by the sample.
    """

    layout: Layout
    begins: array[int]
    recipes: tuple[Recipe, ...]
    chosen: array[int]

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.chosen)

    def recipe(self, index: int) -> Recipe:
        """Return how frame ``index`` is compressed."""
        return self.recipes[self.chosen[index]]

    def cut(self) -> FrameCut:
        """Return which bytes of which file each frame has."""
        return FrameCut(self.layout.files, self.begins)


def plan_frames(
    model: Path, files: Sequence[SourceFile], *, part_size_bytes: int, progress: Progress = silent
) -> FramePlan | None:
    """Plan how to compress a model; None where that does not pay.

    Reads a sample of each file, 1 MiB at most for each width of element in it.  Raises
    ``Refused("model.changed")`` where a file is not as it was scanned.
    """
    total = sum(file.size_bytes for file in files)
    source, codec = SourceFiles(model), FrameCodec(_SAMPLE_BYTES)
    planning = _Planning(part_size_bytes)
    try:
        for file in files:
            progress("sample", planning.end, total)
            planning.add(file, _Sampler(source, file, codec))
    finally:
        codec.close()
        source.close()
    progress("sample", total, total)
    return planning.result()


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes of one file, from ``begin`` to before ``end``, of elements of ``width`` bytes."""

    begin: int
    end: int
    width: int


@dataclass(frozen=True, slots=True)
class _Choice:
    recipe: Recipe
    ratio: float


class _Planning:
    """The frames of the files so far."""

    def __init__(self, part_size_bytes: int) -> None:
        self._part_size_bytes = part_size_bytes
        self._frame_bytes = min(part_size_bytes, FRAME_BYTES)
        self._placed: list[Placed] = []
        self._begins = array("Q", [0])
        self._recipes: dict[Recipe, int] = {}
        self._chosen = array("H")
        self._expected = 0.0
        self.end = 0

    def add(self, file: SourceFile, sampler: _Sampler) -> None:
        offset = self.end
        self._placed.append(Placed(file=file, offset=offset))
        stretches = sampler.stretches()
        choices = {
            width: sampler.choose([stretch for stretch in stretches if stretch.width == width])
            for width in {stretch.width for stretch in stretches}
        }
        for stretch in stretches:
            choice = choices[stretch.width]
            self._expected += choice.ratio * (stretch.end - stretch.begin)
            self._cut(stretch, choice.recipe)
        self.end = offset + file.size_bytes

    def result(self) -> FramePlan | None:
        small_enough = self._expected <= _WORTH * self.end
        if not self.end or not small_enough or len(self._chosen) > MAX_FRAMES:
            return None
        size = self._part_size_bytes
        return FramePlan(
            layout=Layout(
                part_size_bytes=size,
                part_count=padded_parts(round(self._expected), size),
                files=tuple(self._placed),
            ),
            begins=self._begins,
            recipes=tuple(self._recipes),
            chosen=self._chosen,
        )

    def _cut(self, stretch: _Stretch, recipe: Recipe) -> None:
        width, at = recipe.width or 1, stretch.begin
        # Half an element cannot be grouped; it is a frame of its own, and seldom there.
        end = stretch.end - (stretch.end - at) % width
        # Counted from where the file begins, if that splits no element: whole blocks of the disk
        # are read and written past the page cache.
        grid = at % width
        while at < end:
            stop = min(end, at + self._frame_bytes - (at - grid) % self._frame_bytes)
            self._add(stop - at, recipe)
            at = stop
        if end < stretch.end:
            self._add(stretch.end - end, AS_IT_IS)

    def _add(self, size: int, recipe: Recipe) -> None:
        self._begins.append(self._begins[-1] + size)
        self._chosen.append(self._recipes.setdefault(recipe, len(self._recipes)))


class _Sampler:
    """Looks into one file."""

    def __init__(self, source: SourceFiles, file: SourceFile, codec: FrameCodec) -> None:
        self._source = source
        self._file = file
        self._codec = codec

    def stretches(self) -> list[_Stretch]:
        """Cut the file where its elements change."""
        header = tensor_header(self._source, self._file)
        if header is not None:
            return list(_typed(header))
        return [_Stretch(0, self._file.size_bytes, _UNKNOWN)] if self._file.size_bytes else []

    def choose(self, stretches: Sequence[_Stretch]) -> _Choice:
        """Choose how stretches of one width are compressed, by a sample of them."""
        width = stretches[0].width
        samples = self._read(stretches)
        choices = [_try(samples, w, self._codec) for w in ([width] if width else _TRIED)]
        best = choices[0]
        for choice in choices[1:]:
            if choice.ratio < best.ratio - _BETTER:
                best = choice
        return best if best.ratio <= _WORTH else _Choice(AS_IT_IS, 1.0)

    def _read(self, stretches: Sequence[_Stretch]) -> list[memoryview]:
        windows = [range(s.begin, s.end, _SAMPLE_BYTES) for s in stretches]
        ends = {s.begin: s.end for s in stretches}
        count = sum(map(len, windows))
        wanted = {count * n // _SAMPLES for n in range(_SAMPLES)} if count > _SAMPLES else None
        samples: list[memoryview] = []
        fd = self._source.open(self._file)
        data = OldFile(fd, 0)
        try:
            for n, (offset, end) in enumerate(
                (offset, ends[window.start]) for window in windows for offset in window
            ):
                if wanted is None or n in wanted:
                    view = memoryview(bytearray(min(_SAMPLE_BYTES, end - offset)))
                    self._source.read(data, self._file, view, offset)
                    samples.append(view)
        finally:
            data.close()
            os.close(fd)
        return samples


def _try(samples: Sequence[memoryview], width: int, codec: FrameCodec) -> _Choice:
    """Compress samples as elements of ``width`` bytes, each plane by itself."""
    total = sum(map(len, samples))

    def saved(recipe: Recipe) -> int:
        whole = (sample[: len(sample) - len(sample) % width] for sample in samples)
        return sum(len(view) - len(codec.compress(recipe, view).data) for view in whole)

    if width == 1:
        quick, thorough = (saved(Recipe(1, 1, thorough=t)) for t in (False, True))
        pays = thorough - quick > _BETTER * total
        return _Choice(Recipe(1, 1, thorough=pays), 1 - max(quick, thorough * pays) / total)
    planes, gained = 0, 0
    for plane in range(width):
        if gain := saved(Recipe(width, 1 << plane)):
            planes |= 1 << plane
            gained += gain
    return _Choice(Recipe(width, planes) if planes else AS_IT_IS, 1 - gained / total)


def _typed(header: Header) -> Iterator[_Stretch]:
    """Cut a safetensors file where the width of its elements changes, small tensors aside."""
    now = _Stretch(0, header.size_bytes, 1)
    for tensor in header.tensors:
        if not tensor.size_bytes:
            continue
        end, width = tensor.offset + tensor.size_bytes, DTYPE_BITS[tensor.dtype] // 8
        alike = width == now.width or tensor.size_bytes < _SMALL_BYTES
        if alike and not (tensor.offset - now.begin) % now.width:
            now = _Stretch(now.begin, end, now.width)
        else:
            yield now
            now = _Stretch(tensor.offset, end, width)
    yield now
