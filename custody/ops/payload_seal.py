"""Seal a model's files into a payload, in one pass.  Protocol: docs/protocol.md section 3.3.

A sealing that stops may go on later: a part is written before its row is, so whatever row is there
says which part to look at.  It is believed for nothing else: see `_Sealing._kept`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from typing import Protocol

import msgspec

from custody.crypto.fingerprint import FINGERPRINT_BYTES, KEY_BYTES, fingerprint
from custody.crypto.parts import (
    DIGEST_BYTES,
    ROW_BYTES,
    SALT_BYTES,
    Row,
    open_part,
    row_digest,
    seal_part,
)
from custody.crypto.secret import Octets
from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.contents import File
from custody.formats.parts import PARTS, PAYLOAD, PartTable, plaintext_digest
from custody.formats.policy import PartDigest
from custody.ops.ahead import Ahead
from custody.ops.landing import check_space, disk_errors
from custody.ops.linux import NewFile, is_large
from custody.ops.model_files import Layout, Segment, Segments, interleave, longest_first, runs_of
from custody.ops.model_source import ModelSource, PlainSource
from custody.ops.part_map import PartMap
from custody.ops.pipeline import (
    FileHashes,
    Pool,
    files_at_once,
    in_hash_order,
    worker_count,
    workers_between,
    zero,
)
from custody.ops.progress import Progress, silent

_NO_SALT = bytes(SALT_BYTES)


class SealedPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What manifest and contents say about a sealed payload.

    ``files`` is the file table of the contents, in code-point order.  ``part_digests`` are of the
    plaintext of a delta's taken parts, padding included, 32 bytes each; None where there is no
    base.  ``frames`` are the rows of a compressed model's.  ``kept_parts`` were there from an
    earlier run.  ``fingerprints`` are of all parts, by ``fingerprint_key``; a compressed model has
    none.
    """

    parts_root: Digest
    part_count: int
    files: tuple[File, ...]
    part_digests: bytes | None = None
    frames: bytes | None = None
    kept_parts: int = 0
    fingerprint_key: bytes = bytes(KEY_BYTES)
    fingerprints: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadKey:
    """What a payload is sealed by.  ``cek`` and ``payload_id`` have 32 bytes."""

    cek: Octets = field(repr=False)
    payload_id: bytes
    part_digest: PartDigest


class Sink(Protocol):
    """Takes bytes at offsets, from several threads."""

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""


class Earlier(Protocol):
    """What an earlier run left.  Nothing of it is believed."""

    def row(self, index: int) -> Row | None:
        """Return the row of a part, if it has one."""

    def read(self, index: int, part: memoryview) -> bool:
        """Fill ``part`` with a part's ciphertext; False where not all of it is there."""


class Nothing:
    """No earlier run."""

    def row(self, index: int) -> Row | None:
        """Return no row."""
        return None

    def read(self, index: int, part: memoryview) -> bool:
        """Fill nothing."""
        return False


def seal_payload(
    model: Path,
    layout: Layout,
    *,
    cek: Octets,
    payload_id: bytes,
    part_digest: PartDigest,
    directory: Path,
    ahead: Ahead | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> SealedPayload:
    """Read ``model`` once and write the files ``payload`` and ``parts`` in ``directory``.

    ``cek`` and ``payload_id`` have 32 bytes; ``ahead`` may have the payload's memory already.
    Files of an earlier run under the same key are gone on with.  Raises
    ``Refused("model.changed")`` where a file is not as it was scanned, and `Unavailable` where the
    disk is full or a file cannot be read; what was written by then is ciphertext, and the caller's
    to remove or keep (`landing.new_directory`).
    """
    key = PayloadKey(cek=cek, payload_id=payload_id, part_digest=part_digest)
    payload_bytes, rows_bytes = _output_bytes(layout)
    there = _size(directory / PAYLOAD) + (ahead.reserved_bytes if ahead else 0)
    check_space(directory, size_bytes=max(0, payload_bytes - there) + rows_bytes)
    source = ModelSource(model, layout)
    try:
        with (
            _output(directory / PAYLOAD, payload_bytes, ahead) as payload,
            _output(directory / PARTS, rows_bytes) as rows,
        ):
            return seal_parts(
                source,
                layout,
                key=key,
                payload=payload.file,
                rows=rows.file,
                earlier=_Left(payload.fd, rows.fd, layout.part_size_bytes),
                progress=progress,
                workers=workers or workers_between(model, directory),
            )
    finally:
        source.close()


def seal_parts(
    source: PlainSource,
    layout: Layout,
    *,
    key: PayloadKey,
    payload: Sink,
    rows: Sink,
    earlier: Earlier | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> SealedPayload:
    """Seal whatever ``source`` gives into any two sinks; else as `seal_payload`."""
    sealing = _Sealing(source, layout, key, earlier or Nothing(), payload=payload, rows=rows)
    sealing.run(progress, workers)
    return sealing.result()


def _output_bytes(layout: Layout) -> tuple[int, int]:
    count = PartMap.of_layout(layout).carried_count
    return count * layout.part_size_bytes, count * ROW_BYTES


class _Output(msgspec.Struct, frozen=True):
    fd: int
    file: NewFile


@contextmanager
def _output(path: Path, size_bytes: int, ahead: Ahead | None = None) -> Iterator[_Output]:
    """Open a file of the bundle, and see it on the disk at the end."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with disk_errors(path):
        fd = ahead.take(path, size_bytes) if ahead else None
        if fd is None:
            fd = os.open(path, flags, 0o644)
        file = NewFile(fd, size_bytes, written_behind=is_large(size_bytes))
        try:
            yield _Output(fd, file)
            os.fsync(fd)
        finally:
            file.close()
            os.close(fd)


def _size(path: Path) -> int:
    """Count the bytes a file already takes on the disk."""
    return path.stat().st_blocks * 512 if path.exists() else 0


class _Left:
    """The payload and rows of an earlier run, half written."""

    def __init__(self, payload_fd: int, rows_fd: int, part_size_bytes: int) -> None:
        self._fd = payload_fd
        self._size = part_size_bytes
        # Read once, at the start: what is written from now on is this run's own.
        self._rows = _read_all(rows_fd)

    def row(self, index: int) -> Row | None:
        packed = self._rows[index * ROW_BYTES : (index + 1) * ROW_BYTES]
        if len(packed) < ROW_BYTES or packed.startswith(_NO_SALT):
            return None
        return Row.unpack(packed)

    def read(self, index: int, part: memoryview) -> bool:
        done = 0
        while done < len(part):
            got = os.preadv(self._fd, [part[done:]], index * self._size + done)
            if not got:
                return False
            done += got
        return True


def _read_all(fd: int) -> bytes:
    size, data = os.fstat(fd).st_size, bytearray()
    while len(data) < size and (block := os.pread(fd, size - len(data), len(data))):
        data += block
    return bytes(data)


class _Sealing:
    """The work on each part of one payload."""

    def __init__(
        self,
        source: PlainSource,
        layout: Layout,
        key: PayloadKey,
        earlier: Earlier,
        *,
        payload: Sink,
        rows: Sink,
    ) -> None:
        self._layout = layout
        self._map = PartMap.of_layout(layout)
        self._segments = Segments(layout.files, layout.part_size_bytes)
        self._hashes = FileHashes(layout.files, self._segments)
        self._source = source
        self._key = key
        self._earlier = earlier
        self._payload = payload
        self._rows_out = rows
        self._rows = bytearray(self._map.carried_count * ROW_BYTES)
        taken_count = layout.part_count - self._map.carried_count
        self._taken_digests = bytearray(taken_count * DIGEST_BYTES)
        self._fingerprint_key = os.urandom(KEY_BYTES)
        self._fingerprints = bytearray(layout.part_count * FINGERPRINT_BYTES)
        self._kept_parts: list[int] = []

    def run(self, progress: Progress, workers: int | None) -> None:
        """Seal every part."""
        layout = self._layout
        count = worker_count(layout.part_size_bytes, workers)
        runs = runs_of(layout.files, self._segments, layout.part_count)
        pool = Pool(
            self._seal,
            interleave(longest_first(runs), files_at_once(count)),
            part_size_bytes=layout.part_size_bytes,
            stop=self._hashes.stop,
        )
        pool.run("seal", layout.part_count, count, progress)
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
            for index, placed in enumerate(self._layout.files)
        )
        return SealedPayload(
            parts_root=PartTable(self._rows).root(),
            part_count=self._map.carried_count,
            part_digests=bytes(self._taken_digests) if self._layout.base else None,
            files=files,
            kept_parts=len(self._kept_parts),
            fingerprint_key=self._fingerprint_key,
            fingerprints=bytes(self._fingerprints),
        )

    def _seal(self, index: int, buffer: memoryview) -> None:
        part = buffer[: self._layout.part_size_bytes]
        segments = self._segments.of_part(index)
        self._fill(segments, part)
        at = index * FINGERPRINT_BYTES
        self._fingerprints[at : at + FINGERPRINT_BYTES] = fingerprint(self._fingerprint_key, part)
        for segment in in_hash_order(segments):
            begin = segment.part_offset
            self._hashes.feed(index, segment, part[begin : begin + segment.size_bytes])
        place = self._map.carried(index)
        if place is None:
            at = self._map.taken_as(index) * DIGEST_BYTES
            digest = plaintext_digest(self._key.part_digest, part)
            self._taken_digests[at : at + DIGEST_BYTES] = digest
        else:
            row = self._kept(place, buffer, segments) or self._sealed(place, buffer)
            self._rows[place * ROW_BYTES : (place + 1) * ROW_BYTES] = row
        self._source.release(segments)

    def _fill(self, segments: Sequence[Segment], part: memoryview) -> None:
        end = 0
        for segment in segments:
            zero(part[end : segment.part_offset])
            end = segment.part_offset + segment.size_bytes
            self._source.read(segment, part[segment.part_offset : end])
        zero(part[end:])

    def _sealed(self, index: int, buffer: memoryview) -> bytes:
        """Seal and write the part in ``buffer``; return its row."""
        key, part = self._key, buffer[: self._layout.part_size_bytes]
        # Drawn only now, when the plaintext is fixed: whatever is sealed again, after a crash or
        # a changed source, is sealed under another key.
        salt = os.urandom(SALT_BYTES)
        tag = seal_part(key.cek, key.payload_id, index, buffer, salt=salt)
        digest = row_digest(key.part_digest, index, salt, part, tag)
        row = Row(salt=salt, tag=tag, digest=digest).pack()
        self._payload.write(part, index * self._layout.part_size_bytes)
        # After its part: a row that is there says that all of its part once was.
        self._rows_out.write(memoryview(row), index * ROW_BYTES)
        return row

    def _kept(self, index: int, buffer: memoryview, segments: Sequence[Segment]) -> bytes | None:
        """Return the row of a part that an earlier run has sealed, if it holds against the source.

        Otherwise ``buffer`` holds the plaintext again, to be sealed with a new salt.
        """
        row = self._earlier.row(index)
        if row is None:
            return None
        key, part = self._key, buffer[: self._layout.part_size_bytes]
        digest = plaintext_digest(key.part_digest, part)
        # It is opened and compared, never sealed again to compare: one more byte under an old
        # key and nonce, of a source that has changed after all, would give both plaintexts away.
        if self._earlier.read(index, part) and self._opens(index, buffer, row):
            if compare_digest(plaintext_digest(key.part_digest, part), digest):
                self._kept_parts.append(index)
                return row.pack()
            raise self._changed(segments)
        self._fill(segments, part)
        if not compare_digest(plaintext_digest(key.part_digest, part), digest):
            raise self._changed(segments)
        return None

    def _opens(self, index: int, buffer: memoryview, row: Row) -> bool:
        key, part = self._key, buffer[: self._layout.part_size_bytes]
        if row_digest(key.part_digest, index, row.salt, part, row.tag) != row.digest:
            return False
        try:
            open_part(key.cek, key.payload_id, index, buffer, salt=row.salt, tag=row.tag)
        except Refused:
            return False
        return True

    def _changed(self, segments: Sequence[Segment]) -> Refused:
        name = self._layout.files[segments[0].file].name if segments else ""
        return Refused(
            "is not what was sealed of it before",
            check="model.changed",
            where=name,
            hint="seal again from the start, when nothing writes to the model",
        )
