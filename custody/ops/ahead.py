"""Have memory made while the program is busy with something else.

Most of what a write into tmpfs costs is getting the pages, and a command has one core idle while it
imports, logs in and talks to a TPM.  So a thread makes files without a name (O_TMPFILE) beside the
target and has pages put into them (fallocate, which holds no lock of the interpreter).  Whoever
writes the output later gives such a file its name, or does not: then it is gone, as it is when the
process dies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from custody.ops.linux import in_memory, link_open, reserve

#: A file that is taken waits for the stretch being reserved: 3 ms.
_STRETCH_BYTES = 16 << 20
#: Whatever somebody takes to type a PIN, so much and no more is held for it.
_MOST_BYTES = 4 << 30


class Ahead:
    """Files without a name that grow in the background, until they are taken or given up."""

    def __init__(
        self,
        folder: Path,
        size_bytes: Callable[[], int],
        *,
        files: int = 1,
        mode: int = 0o600,
    ) -> None:
        """Begin to reserve up to ``size_bytes()`` in all, for files in or below ``folder``.

        Errors are kept quiet: the write that comes later will meet them too.
        """
        self._fds: list[int] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._taking = threading.Lock()
        with suppress(OSError):
            if in_memory(folder):
                self._fds += [_nameless(folder, mode) for _ in range(files)]
        if self._fds:
            self._thread = threading.Thread(
                target=self._grow, args=(size_bytes,), name="ahead", daemon=True
            )
            self._thread.start()

    def take(self, name: str | Path, size_bytes: int, *, dir_fd: int | None = None) -> int | None:
        """Make one of the files the new file ``name``, of at most ``size_bytes``.

        Returns its descriptor, the caller's from now on; None where there is none to be had, and
        the file is to be made as usual.
        """
        self._stop()
        with self._taking:
            fd = self._fds.pop() if self._fds else None
        if fd is None:
            return None
        try:
            if os.fstat(fd).st_size > size_bytes:
                os.ftruncate(fd, size_bytes)
            link_open(fd, name, dir_fd=dir_fd)
        except OSError:
            os.close(fd)
            return None
        return fd

    @property
    def reserved_bytes(self) -> int:
        """Count what is there and no file of a name has it yet; nothing grows any more."""
        self._stop()
        return sum(os.fstat(fd).st_blocks for fd in self._fds) * 512

    def close(self) -> None:
        """Give back what was not taken."""
        self._stop()
        while self._fds:
            os.close(self._fds.pop())

    def _stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _grow(self, size_bytes: Callable[[], int]) -> None:
        # A stretch to each in turn: which file is how large is not known yet.
        with suppress(OSError):
            wanted = min(size_bytes(), _MOST_BYTES)
            for number in range(wanted // _STRETCH_BYTES):
                if self._stopped.is_set():
                    return
                turn, file = divmod(number, len(self._fds))
                reserve(self._fds[file], turn * _STRETCH_BYTES, _STRETCH_BYTES)


@contextmanager
def sealing_ahead(model: Path, bundle: Path) -> Iterator[Ahead]:
    """Reserve the payload of a bundle to be made of ``model``, for as long as the block lasts."""
    growing = Ahead(bundle.absolute().parent, lambda: tree_bytes(model), mode=0o644)
    try:
        yield growing
    finally:
        growing.close()


@contextmanager
def opening_ahead(payload: Path, target: Path) -> Iterator[Ahead]:
    """Reserve files of the model that ``payload`` will be opened to, for as long."""
    # As many as there will be workers: each begins with another file, the largest first.
    files = len(os.sched_getaffinity(0))
    growing = Ahead(target.absolute().parent, lambda: _held_bytes(payload.stat()), files=files)
    try:
        yield growing
    finally:
        growing.close()


def _held_bytes(about: os.stat_result) -> int:
    # Nothing has verified the file yet: what is only a hole in it must not cost memory.
    return min(about.st_size, about.st_blocks * 512)


def tree_bytes(directory: Path) -> int:
    """Add up the sizes of the files below ``directory``, as far as they can be seen."""
    found, waiting = 0, [os.fspath(directory)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    found += entry.stat(follow_symlinks=False).st_size
    return found


def _nameless(folder: Path, mode: int) -> int:
    return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode)
