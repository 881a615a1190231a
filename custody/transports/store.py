"""A store in a directory, which any web server can serve as it is.

Objects are files under their paths.  A file appears whole or not at all, and is on disk when a
write returns; ``.staging`` holds what is being written, and ``.lock`` serialises the swaps.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from custody.encoding import sha256
from custody.errors import Malformed, Refused, Unavailable
from custody.log.storage import Stored

_STAGING = ".staging"
_LOCK = ".lock"
_PATH = re.compile(r"[a-z0-9][a-z0-9_.-]*(?:/[a-z0-9][a-z0-9_.-]*)*", re.ASCII)
_MAX_PATH_CHARS = 256
#: No link, which would let who can write here choose what is published, and no wait for a FIFO.
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
#: No write takes so long; what lies in staging since is a killed one's.
_STALE_SECONDS = 86_400


class DirectoryStore:
    """Objects in one directory."""

    def __init__(self, root: Path) -> None:
        """Open the store at ``root``, which need not be there before the first write."""
        self.root = root.absolute()

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.root)!r})"

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return an object, None if there is none."""
        file = self._file(path)
        with _disk(file):
            try:
                descriptor = os.open(file, _READING)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with os.fdopen(descriptor, "rb") as opened:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                data = opened.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise Malformed(f"larger than the {max_bytes} bytes allowed", where=path)
        return data

    def look(self, path: str, *, max_bytes: int) -> Stored | None:
        """Return an object with its version, None if there is none."""
        data = self.read(path, max_bytes=max_bytes)
        return None if data is None else Stored(data, _version(data))

    def create(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects that never change; one that is there must be the same."""
        folders: set[Path] = set()
        with self._staging() as staging:
            for path, data in objects:
                file = self._file(path)
                with _disk(file):
                    folders.update(self._make_folder(file.parent))
                    _write(staging, data)
                    try:
                        os.link(staging, file)
                    except FileExistsError:
                        self._check_same(path, data)
                    # A new file for the next one: this one has become the object.
                    staging.unlink()
                folders.add(file.parent)
        # The names reach the disk last, a folder once however many objects it took.
        for folder in folders:
            with _disk(folder):
                _sync(folder)

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the paths of the objects in a folder, in order; none where there is no folder."""
        where = self._file(folder)
        with _disk(where):
            try:
                with os.scandir(where) as entries:
                    found = sorted(entry.name for entry in entries if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                return ()
        return tuple(f"{folder}/{name}" for name in found if _PATH.fullmatch(name))

    def remove(self, path: str) -> None:
        """Take an object away; one that is not there is no error."""
        file = self._file(path)
        with _disk(file):
            file.unlink(missing_ok=True)

    def swap(self, path: str, data: bytes, *, version: str | None) -> str:
        """Replace the object of that version, or write the first one; return the new version."""
        file = self._file(path)
        with _disk(file):
            made = self._make_folder(file.parent)
        with self._locked(), self._staging() as staging:
            self._sweep()
            found = self.look(path, max_bytes=1 << 30)
            if (None if found is None else found.version) != version:
                raise Refused(
                    "somebody else has replaced it", check="store.changed", where=str(file)
                )
            with _disk(file):
                _write(staging, data)
                staging.replace(file)
                for folder in {file.parent, *made}:
                    _sync(folder)
        return _version(data)

    def _file(self, path: str) -> Path:
        if len(path) > _MAX_PATH_CHARS or not _PATH.fullmatch(path):
            raise Malformed("not a path in a store", where=path[:80])
        return self.root / path

    def _make_folder(self, folder: Path) -> set[Path]:
        """Make a folder and those above it; return those that must reach the disk for it."""
        missing: list[Path] = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
        return {path.parent for path in missing}

    def _check_same(self, path: str, data: bytes) -> None:
        if self.read(path, max_bytes=len(data)) != data:
            raise Refused(
                "another object is there already",
                check="store.differs",
                where=str(self.root / path),
            )

    def _sweep(self) -> None:
        for left in (self.root / _STAGING).iterdir():
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                    left.unlink()

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        staging = self.root / _STAGING / secrets.token_hex(8)
        with _disk(staging):
            staging.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            yield staging
        finally:
            with suppress(OSError):
                staging.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.root / _LOCK
        with _disk(lock):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _version(data: bytes) -> str:
    return sha256(data).hex()


def _write(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        words = (error.strerror or type(error).__name__).lower()
        raise Unavailable(words, where=str(where)) from error
