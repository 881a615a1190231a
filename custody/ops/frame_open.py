"""Open a compressed payload whole: frames on all cores, each file still hashed in order.

Format: frames.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest

from custody.crypto.secret import Octets
from custody.formats.contents import Contents
from custody.formats.frames import FrameTable
from custody.formats.manifest import Core
from custody.formats.parts import plaintext_digest
from custody.ops.frame_cut import FrameCut
from custody.ops.frame_opener import FrameOpener
from custody.ops.model_files import Segment, interleave, longest_first, runs_of
from custody.ops.model_sink import PlainSink
from custody.ops.part_cache import PartCache
from custody.ops.payload_open import FileChecks, naming
from custody.ops.payload_source import SealedSource, decrypt_part
from custody.ops.pipeline import Pool, files_at_once, worker_count
from custody.ops.progress import Progress, silent

#: What the memory of all workers may take together; see `pipeline`.
_BUFFERS_BYTES = 192 << 20
#: A worker's own frame, and a codec's three.
_FRAMES_EACH = 4


def open_frames(
    source: SealedSource,
    sink: PlainSink,
    table: FrameTable,
    *,
    core: Core,
    contents: Contents,
    cek: Octets,
    progress: Progress = silent,
    workers: int | None = None,
) -> None:
    """Open every frame from any source into any sink; else as `payload_open.open_parts`.

    Raises also ``Refused("frame.stored")``, and `Unavailable` where the extra ``compress`` is not
    installed.
    """
    opening = _Opening(source, sink, table, core=core, contents=contents, cek=cek)
    opening.run(progress, workers)


class _Opening:
    """The work on each frame of one payload."""

    def __init__(
        self,
        source: SealedSource,
        sink: PlainSink,
        table: FrameTable,
        *,
        core: Core,
        contents: Contents,
        cek: Octets,
    ) -> None:
        self._source = source
        self._sink = sink
        self._table = table
        self._core = core
        self._contents = contents
        self._cek = cek
        self._cut = FrameCut(contents.files, table.begins)
        self._checks = FileChecks(contents, self._cut)

    def run(self, progress: Progress, workers: int | None) -> None:
        """Open every frame."""
        size, table = self._core.part_size_bytes, self._table
        count = _workers(size, table.largest_bytes, workers)
        runs = runs_of(self._contents.files, self._cut, len(table))
        # Each file that is worked on has a part, and the next where a frame ends in it.
        parts = PartCache(size, self._decrypt, slots=2 * count)
        self._opener = FrameOpener(table, part_size_bytes=size, part=parts.part)
        pool = Pool(
            self._open,
            interleave(longest_first(runs), files_at_once(count)),
            part_size_bytes=table.largest_bytes,
            stop=self._checks.stop,
        )

        def tell(phase: str, done_bytes: int, _: int) -> None:
            # Pool counts frames, all as large as the largest.
            share = done_bytes / (len(table) * table.largest_bytes)
            progress(phase, round(share * table.size_bytes), table.size_bytes)

        try:
            self._checks.check_empty()
            pool.run("open", len(table), count, tell)
        finally:
            self._opener.close()
            parts.close()

    def _open(self, index: int, buffer: memoryview) -> None:
        segments = self._cut.of_part(index)
        view = buffer[: segments[0].size_bytes]
        if not self._left(index, segments, view):
            with naming(self._contents, segments):
                self._opener.open_into(index, view)
            self._sink.write(segments[0], view)
        self._checks.feed(index, segments[0], view)
        self._sink.release(segments)

    def _left(self, index: int, segments: Sequence[Segment], view: memoryview) -> bool:
        """Take a frame that an earlier run left, if it has the digest of its row."""
        if not self._sink.left(segments, view):
            return False
        return compare_digest(
            plaintext_digest(self._core.part_digest, view), self._table.digest(index)
        )

    def _decrypt(self, index: int, buffer: memoryview) -> None:
        decrypt_part(self._source, self._core, self._cek, index, buffer)


def _workers(part_size_bytes: int, frame_bytes: int, wanted: int | None) -> int:
    most = _BUFFERS_BYTES // (2 * part_size_bytes + _FRAMES_EACH * frame_bytes)
    return max(1, min(worker_count(part_size_bytes, wanted), most))
