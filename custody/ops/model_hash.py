"""Hash the files of a model directory side by side, each through the descriptor that was checked.

Unlike `model_files.scan`, which lists what may be sealed, this lists whatever lies there: what is
wrong with it is for `rules.model` to say.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from custody.errors import Refused
from custody.ops.landing import disk_errors
from custody.ops.linux import OldFile, private_memory
from custody.ops.model_files import DIRECTORY, Identity, open_beneath
from custody.ops.progress import Progress
from custody.rules.model import MAX_ENTRIES, Entry

PHASE: Final = "hashing"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_CHUNK_BYTES = 1 << 20
#: More threads than cores: they share the last files, where one alone would finish a core late.
_THREADS_PER_CORE = 2
_MAX_THREADS = 32
_TICK_SECONDS = 0.1


class _State(Protocol):
    def update(self, data: memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


class Found(msgspec.Struct, frozen=True):
    """Something in a directory, and which state of it was seen."""

    entry: Entry
    identity: Identity


class Stretch(msgspec.Struct, frozen=True):
    """Bytes of a file to hash, from ``start`` to before ``end``."""

    file: Found
    start: int
    end: int


class ModelDirectory:
    """An open model directory, or the one file that a model is."""

    def __init__(self, model: Path) -> None:
        """Open it; raises `Unavailable`."""
        self._path = model
        self.is_file = not model.is_symlink() and model.is_file()
        with disk_errors(model):
            self._root = os.open(model.parent if self.is_file else model, DIRECTORY)

    def close(self) -> None:
        """Close it."""
        os.close(self._root)

    def entries(self) -> tuple[Found, ...]:
        """List everything in it but directories, following no link, in code-point order.

        Bytes of a name that are not UTF-8 come as lone surrogates.  Raises `Refused` where there
        are more than `MAX_ENTRIES`, `Unavailable` where it cannot be read.
        """
        if self.is_file:
            with disk_errors(self._path):
                status = os.lstat(os.fsencode(self._path.name), dir_fd=self._root)
            return (_found(self._path.name, status),)
        found: list[Found] = []
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            with disk_errors(self._path / directory):
                waiting += self._list_one(directory, found)
        return tuple(sorted(found, key=lambda f: f.entry.name))

    def digests(
        self, stretches: Sequence[Stretch], *, algorithm: str, progress: Progress
    ) -> tuple[bytes, ...]:
        """Hash stretches of files; raise ``Refused("model.changed")`` for one not as it was seen.

        ``algorithm`` is one of `formats.model_files.ALGORITHMS`.
        """
        return _Work(self, stretches, _hasher(algorithm)).run(progress)

    @contextmanager
    def opened(self, file: Found) -> Iterator[int]:
        """Open a file that must be the one listed, and still be that when the block ends."""
        name, where = self._path.name if self.is_file else file.entry.name, self.where(file)
        try:
            # Not to hang where a FIFO has taken the file's place.
            fd = open_beneath(self._root, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _GONE:
                raise changed(where) from error
            with disk_errors(where):
                raise
        try:
            _check(fd, file, where)
            yield fd
            _check(fd, file, where)
        finally:
            os.close(fd)

    def where(self, file: Found) -> Path:
        """Return the path of a file, to be shown."""
        return self._path if self.is_file else self._path / file.entry.name

    def _list_one(self, directory: str, found: list[Found]) -> list[str]:
        below: list[str] = []
        fd = _open_listed(self._root, directory)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    raw = os.fsencode(entry.name)
                    name = f"{directory}/{raw.decode('utf-8', 'surrogateescape')}"
                    name = name.removeprefix("/")
                    status = os.lstat(raw, dir_fd=fd)
                    if stat.S_ISDIR(status.st_mode):
                        below.append(name)
                        continue
                    found.append(_found(name, status))
                    if len(found) > MAX_ENTRIES:
                        raise Refused(
                            f"more than {MAX_ENTRIES} files",
                            check="model.files",
                            where=str(self._path),
                        )
        finally:
            os.close(fd)
        return below


class _Work:
    """Threads that take stretches, longest first, and stop together at the first error."""

    def __init__(
        self,
        directory: ModelDirectory,
        stretches: Sequence[Stretch],
        hasher: Callable[[], _State],
    ) -> None:
        self._directory = directory
        self._stretches = stretches
        self._hasher = hasher
        # Longest first, lest one core finish it alone: a stretch is hashed in order.
        order = sorted(range(len(stretches)), key=lambda n: stretches[n].start - stretches[n].end)
        self._order = iter(order)
        self._total = sum(s.end - s.start for s in stretches)
        self._digests = [b""] * len(stretches)
        self._turn = threading.Condition()
        self._running = 0
        self._done = 0
        self._errors: list[BaseException] = []

    def run(self, progress: Progress) -> tuple[bytes, ...]:
        cores = len(os.sched_getaffinity(0))
        count = min(len(self._stretches), _THREADS_PER_CORE * cores, _MAX_THREADS)
        threads = [threading.Thread(target=self._labour, daemon=True) for _ in range(count)]
        self._running = len(threads)
        try:
            for thread in threads:
                thread.start()
            while not self._finished():
                progress(PHASE, self._done, self._total)
        except BaseException as error:
            with self._turn:
                self._errors.insert(0, error)
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise self._errors[0]
        progress(PHASE, self._total, self._total)
        return tuple(self._digests)

    def _finished(self) -> bool:
        with self._turn:
            return self._turn.wait_for(lambda: not self._running, timeout=_TICK_SECONDS)

    def _labour(self) -> None:
        buffer = private_memory(_CHUNK_BYTES)
        try:
            while (index := self._take()) is not None:
                self._digests[index] = self._hash(self._stretches[index], buffer)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._turn:
                self._errors.append(error)
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify_all()

    def _take(self) -> int | None:
        with self._turn:
            return None if self._errors else next(self._order, None)

    def _hash(self, stretch: Stretch, buffer: memoryview) -> bytes:
        state, at = self._hasher(), stretch.start
        where = self._directory.where(stretch.file)
        with (
            self._directory.opened(stretch.file) as fd,
            closing(OldFile(fd, stretch.file.entry.size_bytes)) as file,
        ):
            while at < stretch.end and not self._errors:
                with disk_errors(where):
                    got = file.read(buffer[: stretch.end - at], at)
                if not got:
                    raise changed(where)
                state.update(buffer[:got])
                at += got
                with self._turn:
                    self._done += got
        return state.digest()


def changed(where: Path) -> Refused:
    """Say that a file is not what it was."""
    return Refused(
        "changed while it was being read",
        check="model.changed",
        where=str(where),
        hint="try again when nothing writes to the model",
    )


def _check(fd: int, file: Found, where: Path) -> None:
    if Identity.of(os.fstat(fd)) != file.identity:
        raise changed(where)


def _open_listed(root: int, directory: str) -> int:
    # open_beneath takes names that are text; a directory's own need not be.
    if not directory:
        return os.open(".", DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    fd = root
    try:
        for piece in directory.split("/"):
            raw = piece.encode("utf-8", "surrogateescape")
            below = os.open(raw, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            if fd != root:
                os.close(fd)
            fd = below
    except OSError:
        if fd != root:
            os.close(fd)
        raise
    return fd


def _found(name: str, status: os.stat_result) -> Found:
    mode, identity = status.st_mode, Identity.of(status)
    if stat.S_ISREG(mode):
        return Found(Entry(name, "file", identity.size_bytes), identity)
    return Found(Entry(name, "link" if stat.S_ISLNK(mode) else "special", 0), identity)


def _hasher(algorithm: str) -> Callable[[], _State]:
    if algorithm == "blake3":
        from blake3 import blake3  # noqa: PLC0415 - few signatures need it

        return blake3
    return hashlib.blake2b if algorithm == "blake2b" else hashlib.sha256
