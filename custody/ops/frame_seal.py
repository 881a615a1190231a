"""Seal a model compressed: frames on all cores, one stream of them, and that sealed part by part.

Files go into the stream one after the other, so that a model is compressed no faster than one core
hashes (SHA-256, in order): about as fast as the links are for which it is worth compressing.

How long the stream becomes is known at its end, so the payload grows part by part and is padded
then.  An interrupted sealing starts again: to compare with what was there, all of the model would
have to be read, hashed and compressed anew, and that is nearly all there is to do.

Format: frames.md.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from custody.crypto.parts import (
    ROW_BYTES,
    SALT_BYTES,
    Row,
    padded_parts,
    row_digest,
    seal_part,
)
from custody.formats.contents import File
from custody.formats.frames import Frame
from custody.formats.parts import PARTS, PAYLOAD, PartTable, plaintext_digest
from custody.ops.frame_codec import FrameCodec
from custody.ops.frame_plan import FRAME_BYTES, FramePlan
from custody.ops.landing import check_space, disk_errors
from custody.ops.linux import NewFile, is_large
from custody.ops.model_source import ModelSource, PlainSource
from custody.ops.payload_seal import PayloadKey, SealedPayload, Sink
from custody.ops.pipeline import (
    FileHashes,
    Pool,
    Stopped,
    part_buffer,
    worker_count,
    workers_between,
    zero,
)
from custody.ops.progress import Progress, silent

#: What the buffers of all workers may take together; see `pipeline`.
_BUFFERS_BYTES = 192 << 20
#: A frame as it was read, in planes, and compressed; and what is worked on it with.
_CODEC_BYTES = 4 * FRAME_BYTES


def seal_frames(
    model: Path,
    plan: FramePlan,
    *,
    key: PayloadKey,
    directory: Path,
    progress: Progress = silent,
    workers: int | None = None,
) -> SealedPayload:
    """Read ``model`` once and write the new files ``payload`` and ``parts`` in ``directory``.

    Raises as `payload_seal.seal_payload` does.
    """
    size = plan.layout.part_size_bytes
    # Whether the disk has room is asked for what it should take; the disk will say if it took more.
    check_space(directory, size_bytes=plan.layout.size_bytes)
    most = padded_parts(plan.begins[-1], size)
    source = ModelSource(model, plan.layout, plan.cut())
    try:
        with (
            _output(directory / PAYLOAD, most * size) as payload,
            _output(directory / PARTS, most * ROW_BYTES) as rows,
        ):
            sealed = seal_stream(
                source,
                plan,
                key=key,
                payload=payload.file,
                rows=rows.file,
                progress=progress,
                workers=workers or workers_between(model, directory),
            )
            payload.cut(sealed.part_count * size)
            rows.cut(sealed.part_count * ROW_BYTES)
            return sealed
    finally:
        source.close()


def seal_stream(
    source: PlainSource,
    plan: FramePlan,
    *,
    key: PayloadKey,
    payload: Sink,
    rows: Sink,
    progress: Progress = silent,
    workers: int | None = None,
) -> SealedPayload:
    """Seal whatever ``source`` gives into any two sinks, by a plan of frames."""
    parts = _Parts(key, plan.layout.part_size_bytes, payload=payload, rows=rows)
    sealing = _Sealing(source, plan, key, parts)
    sealing.run(progress, workers)
    return sealing.result()


@dataclass(frozen=True, slots=True)
class _Output:
    path: Path
    fd: int
    file: NewFile

    def cut(self, size_bytes: int) -> None:
        with disk_errors(self.path):
            os.ftruncate(self.fd, size_bytes)


@contextmanager
def _output(path: Path, most_bytes: int) -> Iterator[_Output]:
    """Make a file of the bundle, which is cut to its size in the end, and see it on the disk."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with disk_errors(path):
        fd = os.open(path, flags, 0o644)
        file = NewFile(fd, most_bytes, written_behind=is_large(most_bytes))
        try:
            yield _Output(path, fd, file)
            os.fsync(fd)
        finally:
            file.close()
            os.close(fd)


class _Parts:
    """Seals parts as they come, and remembers what the manifest and contents say of them."""

    def __init__(self, key: PayloadKey, size_bytes: int, *, payload: Sink, rows: Sink) -> None:
        self.size_bytes = size_bytes
        self.rows = bytearray()
        self._key = key
        self._payload = payload
        self._rows_out = rows

    def __len__(self) -> int:
        return len(self.rows) // ROW_BYTES

    def add(self) -> int:
        """Begin one more part; return its index.  For one thread at a time."""
        index = len(self)
        self.rows += bytes(ROW_BYTES)
        return index

    def seal(self, index: int, buffer: memoryview) -> None:
        """Seal the part in ``buffer`` (part size + 16 bytes) and write it."""
        key, part = self._key, buffer[: self.size_bytes]
        salt = os.urandom(SALT_BYTES)
        tag = seal_part(key.cek, key.payload_id, index, buffer, salt=salt)
        digest = row_digest(key.part_digest, index, salt, part, tag)
        row = Row(salt=salt, tag=tag, digest=digest).pack()
        self._payload.write(part, index * self.size_bytes)
        self._rows_out.write(memoryview(row), index * ROW_BYTES)
        self.rows[index * ROW_BYTES : (index + 1) * ROW_BYTES] = row


class _Stream:
    """What frames are stored as, one behind another, in their order; sealed by who fills a part."""

    def __init__(self, parts: _Parts, buffers: list[memoryview]) -> None:
        """Take one buffer more than there are threads."""
        self._parts = parts
        self._size = parts.size_bytes
        self._free = buffers
        self._turn = threading.Condition()
        self._next = 0
        self._stopped = False
        self._part = (parts.add(), self._free.pop())
        self._filled = 0
        self.size_bytes = 0

    def put(self, frame: int, data: memoryview) -> None:
        """Append frame ``frame``, of no more than a part, when all before it are; or `Stopped`."""
        with self._turn:
            self._turn.wait_for(lambda: self._stopped or self._next == frame)
            if self._stopped:
                raise Stopped
        # Nobody else comes here before `_next` moves on.
        full = self._append(data)
        with self._turn:
            self._next += 1
            self._turn.notify_all()
        if full is not None:
            self._parts.seal(*full)
            with self._turn:
                self._free.append(full[1])
                self._turn.notify_all()

    def finish(self) -> memoryview:
        """Seal the last part; return a buffer, which nobody else uses any more."""
        index, buffer = self._part
        zero(buffer[self._filled : self._size])
        self._parts.seal(index, buffer)
        return buffer

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def _append(self, data: memoryview) -> tuple[int, memoryview] | None:
        """Copy ``data`` behind what is there; return the part that this has filled, if any."""
        room = self._size - self._filled
        now, rest = data[:room], data[room:]
        buffer = self._part[1]
        buffer[self._filled : self._filled + len(now)] = now
        self._filled += len(now)
        self.size_bytes += len(data)
        if not rest:
            return None
        full = self._part
        self._part = (self._parts.add(), self._buffer())
        self._part[1][: len(rest)] = rest
        self._filled = len(rest)
        return full

    def _buffer(self) -> memoryview:
        with self._turn:
            # Every other thread may hold one it seals, and then there is still one.
            self._turn.wait_for(lambda: self._stopped or bool(self._free))
            if self._stopped:
                raise Stopped
            return self._free.pop()


class _Sealing:
    """The work on each frame of one payload."""

    def __init__(
        self, source: PlainSource, plan: FramePlan, key: PayloadKey, parts: _Parts
    ) -> None:
        self._source = source
        self._plan = plan
        self._algorithm = key.part_digest
        self._parts = parts
        self._cut = plan.cut()
        self._files = plan.layout.files
        self._hashes = FileHashes(self._files, self._cut)
        self._frames: list[bytes] = [b""] * len(plan)
        self._codecs: list[FrameCodec] = []

    def run(self, progress: Progress, workers: int | None) -> None:
        """Compress every frame, seal every part."""
        size, frames = self._parts.size_bytes, self._plan
        count = min(len(frames), _workers(size, workers))
        largest = min(size, FRAME_BYTES)
        with ExitStack() as stack:
            self._codecs += [_codec(stack, largest) for _ in range(count)]
            buffers = [stack.enter_context(part_buffer(size)) for _ in range(count + 1)]
            self._stream = _Stream(self._parts, buffers)
            pool = Pool(
                self._seal, iter(range(len(frames))), part_size_bytes=largest, stop=self._stop
            )

            def tell(phase: str, done_bytes: int, _: int) -> None:
                # Pool counts frames, all as large as the largest.
                at = frames.begins[min(len(frames), done_bytes // largest)]
                progress(phase, at, frames.begins[-1])

            pool.run("seal", len(frames), count, tell)
            self._pad(self._stream.finish())
        self._source.finish()

    def result(self) -> SealedPayload:
        """Describe what was sealed."""
        files = tuple(
            File(
                name=placed.name,
                size_bytes=placed.size_bytes,
                sha256=self._hashes.digest(index).hex(),
                offset=placed.offset,
            )
            for index, placed in enumerate(self._files)
        )
        return SealedPayload(
            parts_root=PartTable(self._parts.rows).root(),
            part_count=len(self._parts),
            files=files,
            frames=b"".join(self._frames),
        )

    def _seal(self, index: int, buffer: memoryview) -> None:
        (segment,) = self._cut.of_part(index)
        view = buffer[: segment.size_bytes]
        self._source.read(segment, view)
        digest = plaintext_digest(self._algorithm, view)
        self._hashes.feed(index, segment, view)
        codec = self._codecs.pop()
        try:
            stored = codec.compress(self._plan.recipe(index), view)
            self._frames[index] = Frame(
                width=stored.width,
                planes=stored.planes,
                size_bytes=len(view),
                stored_bytes=len(stored.data),
                digest=digest,
            ).pack()
            self._stream.put(index, stored.data)
        finally:
            self._codecs.append(codec)
        self._source.release([segment])

    def _pad(self, buffer: memoryview) -> None:
        """Seal parts of zeros up to a Padmé size."""
        parts = self._parts
        count = padded_parts(self._stream.size_bytes, parts.size_bytes)
        for _ in range(len(parts), count):
            zero(buffer[: parts.size_bytes])
            parts.seal(parts.add(), buffer)

    def _stop(self) -> None:
        self._hashes.stop()
        self._stream.stop()


def _workers(part_size_bytes: int, wanted: int | None) -> int:
    most = (_BUFFERS_BYTES - part_size_bytes) // (part_size_bytes + _CODEC_BYTES)
    return max(1, min(worker_count(part_size_bytes, wanted), most))


def _codec(stack: ExitStack, largest_bytes: int) -> FrameCodec:
    codec = FrameCodec(largest_bytes)
    stack.callback(codec.close)
    return codec
