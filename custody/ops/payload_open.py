"""Check a payload with no key, and open it with one.  Protocol: docs/protocol.md sections 3 and 6.

Nothing of a model appears under its final name before all of it has been verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hmac import compare_digest
from pathlib import Path
from typing import Protocol

from custody.crypto.parts import check_cek, is_part
from custody.crypto.secret import Octets
from custody.errors import Refused
from custody.formats.contents import Contents
from custody.formats.manifest import Core
from custody.formats.parts import plaintext_digest
from custody.ops.ahead import Ahead
from custody.ops.base_source import BaseParts, missing
from custody.ops.landing import check_absent, check_space, disk_errors, new_directory
from custody.ops.model_files import Segment, Segments, interleave, longest_first, runs_of
from custody.ops.model_sink import ModelFiles, PlainSink
from custody.ops.part_map import PartMap
from custody.ops.payload_source import PayloadSource, SealedSource, check_part, decrypt_part
from custody.ops.pipeline import (
    FileHashes,
    Pool,
    files_at_once,
    in_hash_order,
    worker_count,
    workers_between,
)
from custody.ops.progress import Progress, silent

_NAMES_SHOWN = 3


class Checked(Protocol):
    """Remembers which parts were found good, so that an interrupted check goes on."""

    def has(self, index: int) -> bool:
        """Whether a part was found good, in these very files."""

    def add(self, index: int) -> None:
        """Remember a good part."""


class _Forgetful:
    """Remembers nothing."""

    def has(self, index: int) -> bool:
        return False

    def add(self, index: int) -> None:
        pass


def check_payload(
    bundle: Path,
    core: Core,
    *,
    checked: Checked | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> None:
    """Make every check of ``payload`` and ``parts`` that needs no key, in one pass.

    Raises ``Refused`` (``payload.size``, ``parts.size``, ``parts.root``, ``part.digest``),
    `Incomplete` where a file is not there, and `Unavailable` where it cannot be read.
    """
    memory = checked or _Forgetful()
    with PayloadSource(bundle, core) as source:

        def check(index: int, buffer: memoryview) -> None:
            if memory.has(index):
                return
            part = buffer[: core.part_size_bytes]
            source.read(index, part)
            check_part(source, core, index, part)
            memory.add(index)

        pool = Pool(
            check,
            iter(range(core.part_count)),
            part_size_bytes=core.part_size_bytes,
            stop=lambda: None,
        )
        count = worker_count(core.part_size_bytes, workers or workers_between(bundle))
        pool.run("check", core.part_count, count, progress)


def open_payload(
    bundle: Path,
    target: Path,
    *,
    core: Core,
    contents: Contents,
    cek: Octets,
    base: Path | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> None:
    """Open the payload of ``bundle`` into the new directory ``target``, all of it or nothing.

    ``core`` and ``contents`` are verified ones; ``base`` is the model that a delta is to.  Raises
    what `check_payload` does, and ``Refused`` with ``target.exists``, ``cek.commitment``,
    ``contents.parts``, ``contents.extent``, ``base.missing``, ``base.different``, ``part.tag``
    or ``file.digest``; `Unavailable` where the disk is too small.
    """
    check_absent(target)
    with new_directory(target) as directory:
        open_into(
            bundle,
            directory,
            core=core,
            contents=contents,
            cek=cek,
            base=base,
            progress=progress,
            workers=workers,
        )


def open_into(
    bundle: Path,
    directory: Path,
    *,
    core: Core,
    contents: Contents,
    cek: Octets,
    base: Path | None = None,
    ahead: Ahead | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> None:
    """Open into a ``directory`` that nobody looks at yet; else as `open_payload`.

    It is empty, or holds what an interrupted run left of the same bundle.  ``ahead`` may have
    memory for its largest files already.
    """
    check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
    parts = PartMap.of(contents, core)
    with ExitStack() as stack:
        taken = None
        if contents.base is not None:
            if base is None:
                raise missing(contents.base.manifest)
            taken = stack.enter_context(BaseParts(base, contents, core, parts))
            # All of it, before anything is written or opened: that a base is not the right one is
            # found out now, not after an hour.
            taken.check(progress=progress, workers=workers)
        _make_room(directory, contents, ahead)
        source = stack.enter_context(PayloadSource(bundle, core))
        open_parts(
            source,
            stack.enter_context(ModelFiles(directory, contents, core, ahead=ahead)),
            core=core,
            contents=contents,
            cek=cek,
            base=taken,
            progress=progress,
            workers=workers or workers_between(bundle, directory),
        )


def _make_room(directory: Path, contents: Contents, ahead: Ahead | None) -> None:
    there = _taken(directory) + (ahead.reserved_bytes if ahead else 0)
    check_space(
        directory,
        size_bytes=sum(file.size_bytes for file in contents.files) - there,
        files=len(contents.files),
    )


def open_parts(
    source: SealedSource,
    sink: PlainSink,
    *,
    core: Core,
    contents: Contents,
    cek: Octets,
    base: BaseParts | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> None:
    """Open every part from any source into any sink.

    Every file has its digest when this returns; what the sink was given before may be thrown away
    only as a whole.  ``cek``, ``core`` and ``contents`` are verified, and fit one another.
    """
    if (table := contents.frame_table()) is not None:
        # Which opens parts as this does, and so needs it.
        from custody.ops.frame_open import open_frames  # noqa: PLC0415

        open_frames(
            source,
            sink,
            table,
            core=core,
            contents=contents,
            cek=cek,
            progress=progress,
            workers=workers,
        )
        return
    opening = _Opening(source, sink, core=core, contents=contents, cek=cek, base=base)
    opening.run(progress, workers)


def _taken(directory: Path) -> int:
    with disk_errors(directory):
        return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


class FileChecks:
    """SHA-256 of every file, in order and from several threads, held against the contents."""

    def __init__(self, contents: Contents, cut: Segments) -> None:
        """Take the files and what they are cut into."""
        self._files = contents.files
        self._hashes = FileHashes(contents.files, cut)
        self.stop = self._hashes.stop

    def feed(self, index: int, segment: Segment, view: memoryview) -> None:
        """Add what piece ``index`` has of a file; refuse a whole file of another digest."""
        self._check(segment.file, self._hashes.feed(index, segment, view))

    def check_empty(self) -> None:
        """Refuse a file without a byte that should have another digest."""
        for index, file in enumerate(self._files):
            if not file.size_bytes:
                self._check(index, self._hashes.digest(index))

    def _check(self, index: int, digest: bytes | None) -> None:
        file = self._files[index]
        if digest is not None and not compare_digest(digest, bytes.fromhex(file.sha256)):
            raise Refused(
                "does not have the digest that its contents and model signature give",
                check="file.digest",
                where=file.name,
            )


@contextmanager
def naming(contents: Contents, segments: Sequence[Segment]) -> Iterator[None]:
    """Say which files a bad part or frame belongs to."""
    try:
        yield
    except Refused as error:
        names = [repr(contents.files[s.file].name) for s in segments[:_NAMES_SHOWN]]
        if len(segments) > _NAMES_SHOWN:
            names.append(f"{len(segments) - _NAMES_SHOWN} more")
        touched = f" (in it: {', '.join(names)})" if names else " (in it: only padding)"
        raise Refused(
            error.reason + touched, check=error.check, where=error.where, hint=error.hint
        ) from error


class _Opening:
    """The work on each part of one payload."""

    def __init__(
        self,
        source: SealedSource,
        sink: PlainSink,
        *,
        core: Core,
        contents: Contents,
        cek: Octets,
        base: BaseParts | None,
    ) -> None:
        if contents.base is not None and base is None:
            raise missing(contents.base.manifest)
        self._base = base
        self._map = PartMap.of(contents, core)
        self._source = source
        self._sink = sink
        self._core = core
        self._contents = contents
        self._cek = cek
        self._segments = Segments(contents.files, core.part_size_bytes)
        self._checks = FileChecks(contents, self._segments)

    def run(self, progress: Progress, workers: int | None) -> None:
        """Open every part."""
        core = self._core
        count = worker_count(core.part_size_bytes, workers)
        runs = runs_of(self._contents.files, self._segments, len(self._map))
        pool = Pool(
            self._open,
            interleave(longest_first(runs), files_at_once(count)),
            part_size_bytes=core.part_size_bytes,
            stop=self._checks.stop,
        )
        self._checks.check_empty()
        pool.run("open", len(self._map), count, progress)

    def _open(self, index: int, buffer: memoryview) -> None:
        segments = self._segments.of_part(index)
        part = buffer[: self._core.part_size_bytes]
        if not self._left(index, segments, buffer):
            place = self._map.carried(index)
            if place is None and self._base is not None:
                self._base.read(index, part)
            elif place is not None:
                with naming(self._contents, segments):
                    decrypt_part(self._source, self._core, self._cek, place, buffer)
            for segment in segments:
                begin = segment.part_offset
                self._sink.write(segment, part[begin : begin + segment.size_bytes])
        for segment in in_hash_order(segments):
            begin = segment.part_offset
            view = part[begin : begin + segment.size_bytes]
            self._checks.feed(index, segment, view)
        self._sink.release(segments)

    def _left(self, index: int, segments: Sequence[Segment], buffer: memoryview) -> bool:
        """Take a part that an earlier run left, if it is the one that was sealed."""
        core, part = self._core, buffer[: self._core.part_size_bytes]
        if not self._sink.left(segments, part):
            return False
        place = self._map.carried(index)
        if place is None:
            digest = self._contents.taken_digest(self._map.taken_as(index))
            return compare_digest(plaintext_digest(core.part_digest, part), digest)
        row, payload_id = self._source.row(place), bytes.fromhex(core.payload_id)
        return is_part(self._cek, payload_id, place, buffer, salt=row.salt, tag=row.tag)
