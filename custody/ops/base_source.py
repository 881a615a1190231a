"""The base of a delta: a model the receiver already has, from which parts are put together.

Nothing of it is believed: a part counts only with the digest that the contents give for its
plaintext.  Formats: contents.md, "Deltas"; parts.md, "Verifying".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path
from typing import Self

from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.contents import Contents
from custody.formats.manifest import Core
from custody.formats.parts import plaintext_digest
from custody.ops.landing import disk_errors
from custody.ops.linux import drop_behind, is_large
from custody.ops.model_files import DIRECTORY, open_beneath
from custody.ops.part_map import PartMap, Piece
from custody.ops.pipeline import Pool, worker_count, zero
from custody.ops.progress import Progress, silent

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_NAMES_SHOWN = 3


class BaseParts:
    """The parts that are taken from a base, each verified whenever it is read."""

    def __init__(self, directory: Path, contents: Contents, core: Core, parts: PartMap) -> None:
        """Take the directory of the model that ``contents``, a delta's, are to."""
        if contents.base is None:
            raise ValueError("not a delta")
        self._path = directory
        self._base = contents.base
        self._contents = contents
        self._map = parts
        self._algorithm = core.part_digest
        self._size = core.part_size_bytes
        self._behind = is_large(self._base.size_bytes)

    def __enter__(self) -> Self:
        with disk_errors(self._path):
            try:
                self._root = os.open(self._path, DIRECTORY)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                raise Refused(
                    "no directory, and the base of what is opened should be here",
                    check="base.missing",
                    where=str(self._path),
                    hint=_hint(self._base.manifest),
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._root)

    def look(self) -> None:
        """See that every file is there and has the bytes that are taken of it, reading none.

        Raises as `check` does.
        """
        ends, first = [0] * len(self._base.files), [0] * len(self._base.files)
        for run in reversed(self._base.taken):
            ends[run.file] = max(ends[run.file], run.file_offset + run.size_bytes)
            first[run.file] = run.offset // self._size
        for name, end, index in zip(self._base.files, ends, first, strict=True):
            fd = self._open(index, name)
            try:
                if os.fstat(fd).st_size < end:
                    raise self._different(index, [], name)
            finally:
                os.close(fd)

    def check(self, *, progress: Progress = silent, workers: int | None = None) -> None:
        """Read and verify every taken part, before anything is written.

        Raises `Refused` naming file and part: ``base.missing`` where a file is not there,
        ``base.different`` where it is another one.
        """
        taken = list(self._map.taken())
        pool = Pool(
            lambda index, buffer: self.read(index, buffer[: self._size]),
            iter(taken),
            part_size_bytes=self._size,
            stop=lambda: None,
        )
        pool.run("base", len(taken), worker_count(self._size, workers), progress)

    def read(self, index: int, part: memoryview) -> None:
        """Fill ``part`` with the plaintext of a taken part; raises as `check` does."""
        pieces = self._map.pieces(index)
        end = 0
        for piece in pieces:
            zero(part[end : piece.part_offset])
            end = piece.part_offset + piece.size_bytes
            self._fill(index, piece, part[piece.part_offset : end])
        zero(part[end:])
        digest = plaintext_digest(self._algorithm, part)
        if not compare_digest(digest, self._contents.taken_digest(self._map.taken_as(index))):
            raise self._different(index, pieces)

    def _fill(self, index: int, piece: Piece, view: memoryview) -> None:
        name = self._base.files[piece.file]
        done = 0
        fd = self._open(index, name)
        try:
            with disk_errors(self._path / name):
                while done < len(view) and (
                    got := os.preadv(fd, [view[done:]], piece.file_offset + done)
                ):
                    done += got
                if self._behind:
                    drop_behind(fd, piece.file_offset, done)
        finally:
            os.close(fd)
        if done < len(view):
            raise self._different(index, [piece])

    def _open(self, index: int, name: str) -> int:
        with disk_errors(self._path / name):
            try:
                # Not to hang where a FIFO lies in the file's place.
                fd = open_beneath(self._root, name, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                raise Refused(
                    f"is not there, and part {index} of the new model is taken from it",
                    check="base.missing",
                    where=str(self._path / name),
                    hint=_hint(self._base.manifest),
                ) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._different(index, [], name)
        return fd

    def _different(self, index: int, pieces: Sequence[Piece], name: str = "") -> Refused:
        names = list(dict.fromkeys(self._base.files[p.file] for p in pieces)) or [name]
        others = f" or in {', '.join(map(repr, names[1:_NAMES_SHOWN]))}" if names[1:] else ""
        return Refused(
            f"is not the base's{others}: part {index} of the new model does not come out of it",
            check="base.different",
            where=str(self._path / names[0]),
            hint=_hint(self._base.manifest),
        )


def open_base(directory: Path | None, contents: Contents, core: Core) -> BaseParts | None:
    """Open what a delta is to, and see that all of it is there; reading verifies it."""
    if contents.base is None:
        return None
    if directory is None:
        raise missing(contents.base.manifest)
    base = BaseParts(directory, contents, core, PartMap.of(contents, core)).__enter__()
    try:
        base.look()
    except BaseException:
        base.close()
        raise
    return base


def missing(manifest: Digest) -> Refused:
    """Say that a delta cannot be opened without its base."""
    return Refused(
        "it carries only what differs from another model, which is needed to open it",
        check="base.missing",
        hint=_hint(manifest),
    )


def _hint(manifest: Digest) -> str:
    return f"--base DIR takes the model opened from manifest {manifest}, as it was opened"
