"""Bundles as a file system for libraries that take fsspec paths: ``custody://NAME/FILE``.

A process mounts a reader under a name of its choice, and only that process can see it::

    with mounted(reader, "minilm"):
        pandas.read_csv("custody://minilm/data/labels.csv")

Read-only, and with no cache of fsspec's, which would put plaintext on the disk or keep it after the
reader is closed.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from fsspec import register_implementation
from fsspec.spec import AbstractFileSystem

from custody.errors import Refused
from custody.formats.contents import File
from custody.ops.reader import Reader

PROTOCOL = "custody"


class _Mounts:
    """The readers of this process, by name."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}
        self._lock = threading.Lock()

    def add(self, name: str, reader: Reader) -> None:
        with self._lock:
            if self._readers.setdefault(name, reader) is not reader:
                raise Refused("another bundle is mounted there", check="mount.name", where=name)

    def remove(self, name: str) -> None:
        with self._lock:
            self._readers.pop(name, None)

    def get(self, name: str) -> Reader | None:
        with self._lock:
            return self._readers.get(name)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._readers)


_MOUNTS = _Mounts()


@contextmanager
def mounted(reader: Reader, name: str) -> Iterator[str]:
    """Show ``reader`` as ``custody://NAME`` for the block; give that address.

    Raises ``Refused("mount.name")`` where the name is taken.
    """
    if not name or "/" in name:
        raise ValueError("a mount's name is one path component")
    register_implementation(PROTOCOL, CustodyFileSystem, clobber=True)
    _MOUNTS.add(name, reader)
    try:
        yield f"{PROTOCOL}://{name}"
    finally:
        _MOUNTS.remove(name)


class CustodyFileSystem(AbstractFileSystem):
    """What is mounted in this process.  Errors of a missing file are the operating system's."""

    protocol: ClassVar[str] = PROTOCOL
    root_marker: ClassVar[str] = ""
    cachable: ClassVar[bool] = False

    # fsspec's own signatures, here and in _open.
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:  # noqa: FBT001, FBT002
        """List a directory, or a file alone."""
        path = self._strip_protocol(path)
        found = self._list(path)
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return name, size and kind; ``sha256`` of a file, by the contents."""
        path = self._strip_protocol(path)
        if not path:
            return _directory("")
        reader, name = self._find(path)
        file = _file_of(reader, name)
        if file is not None:
            return _described(path, file)
        if not name or any(f.name.startswith(f"{name}/") for f in reader.files()):
            return _directory(path)
        raise FileNotFoundError(path)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Read a range as a slice has it; negative numbers count from the end."""
        reader, name = self._find(self._strip_protocol(path))
        size = self._file(reader, name, path).size_bytes
        begin, stop, _ = slice(start, end).indices(size)
        return reader.read(name, begin, max(0, stop - begin))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,  # noqa: FBT001, FBT002
        cache_options: Any = None,
        **kwargs: Any,
    ) -> io.BufferedReader:
        if mode != "rb":
            raise OSError(f"a bundle is read only, and not opened as {mode!r}")
        reader, name = self._find(self._strip_protocol(path))
        self._file(reader, name, path)
        return reader.open(name)

    def _list(self, path: str) -> list[dict[str, Any]]:
        if not path:
            return [_directory(name) for name in _MOUNTS.names()]
        reader, name = self._find(path)
        file = _file_of(reader, name)
        if file is not None:
            return [_described(path, file)]
        prefix = f"{name}/" if name else ""
        entries: dict[str, dict[str, Any]] = {}
        for file in reader.files():
            if file.name.startswith(prefix):
                piece, _, below = file.name[len(prefix) :].partition("/")
                shown = f"{path}/{piece}"
                entries[piece] = _directory(shown) if below else _described(shown, file)
        if not entries:
            raise FileNotFoundError(path)
        return list(entries.values())

    def _find(self, path: str) -> tuple[Reader, str]:
        mount, _, name = path.partition("/")
        reader = _MOUNTS.get(mount)
        if reader is None:
            raise FileNotFoundError(path)
        return reader, name

    def _file(self, reader: Reader, name: str, path: str) -> File:
        file = _file_of(reader, name)
        if file is None:
            is_directory = any(f.name.startswith(f"{name}/") for f in reader.files())
            raise (IsADirectoryError if is_directory or not name else FileNotFoundError)(path)
        return file


def _file_of(reader: Reader, name: str) -> File | None:
    try:
        return reader.file(name)
    except Refused:
        return None


def _described(path: str, file: File) -> dict[str, Any]:
    return {"name": path, "size": file.size_bytes, "type": "file", "sha256": file.sha256}


def _directory(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}
