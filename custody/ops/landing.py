"""Write aside, then rename: outputs appear under their name whole, or not at all.

Beside the target a hidden staging directory ``.NAME.custody-XXXX.partial`` (mode 0700) holds
``lock`` and ``output``.  Its maker holds an exclusive flock on ``lock`` for as long as it lives, so
a staging directory nobody has locked was left by a killed run, and the next landing in the same
directory removes it.  Plaintext is never written anywhere else.

Work that can be gone on with lies in ``.NAME.custody-KEY.unfinished`` instead, KEY being what it is
work on.  That is kept, until it is finished or given up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from custody.errors import Refused, Unavailable
from custody.ops.linux import rename_new, sync_filesystem

_STAGING = re.compile(r"\A\..{1,200}\.custody-[0-9a-f]{16}\.partial\Z", re.DOTALL)
_MAKE_ROOM = "make room, or name another place"
_UNFINISHED = re.compile(r"\A\..{1,200}\.custody-[0-9a-f]{16}\.unfinished\Z", re.DOTALL)
_LOCK = "lock"
_OUTPUT = "output"
_NAME_KEPT_BYTES = 180
#: A sweeper holds the lock of an empty directory for a moment.
_CLAIMS = 5
_CLAIM_SECONDS = 0.02
#: Up to here an fsync each; beyond, everybody's dirty pages once is sooner done.
_SYNCED_EACH = 64
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_directory(target: Path, *, mode: int = 0o700) -> Iterator[Path]:
    """Give a directory to fill; it becomes ``target`` when the block ends without an error.

    Everything in it reaches the disk before the rename.  Raises ``Refused("target.exists")``, and
    `Unavailable` where the disk is full or cannot be written.
    """
    with _staging(target) as staging:
        output = staging / _OUTPUT
        with disk_errors(target):
            output.mkdir(mode=mode)
        yield output
        with disk_errors(target):
            _sync_tree(output)
            _land(output, target)


@contextmanager
def resumable_directory(target: Path, key: str, *, mode: int = 0o700) -> Iterator[Path]:
    """Give a directory to fill, with whatever an interrupted run for ``key`` left in it.

    ``key`` (16 hex digits) is what the work is bound to.  Else as `new_directory`, but where the
    block is stopped by a person or by the disk, what there is stays for another run.  Raises
    ``Refused("target.unfinished")`` where another run is at it, or it is not private to us.
    """
    check_absent(target)
    sweep(target.parent)
    staging = unfinished_path(target, key)
    with disk_errors(target.parent):
        lock = _claim(staging)
    output, kept = staging / _OUTPUT, False
    try:
        with disk_errors(target):
            output.mkdir(mode=mode, exist_ok=True)
        yield output
        with disk_errors(target):
            _sync_tree(output)
            _land(output, target)
    except (KeyboardInterrupt, SystemExit, Unavailable):
        kept = True
        raise
    finally:
        if not kept:
            with suppress(OSError):
                _remove(staging)
        os.close(lock)


def unfinished_path(target: Path, key: str) -> Path:
    """Return where unfinished work for ``key`` on ``target`` is kept."""
    return target.parent / f".{_kept_name(target)}.custody-{key}.unfinished"


def unfinished_output(target: Path, key: str) -> Path | None:
    """Return what an interrupted run left for ``key``, if it did."""
    output = unfinished_path(target, key) / _OUTPUT
    return output if output.is_dir() else None


def give_up(target: Path, key: str) -> None:
    """Remove unfinished work; one that a live run is at is left to it."""
    staging = unfinished_path(target, key)
    with disk_errors(staging):
        _sweep_one(staging)


def _claim(staging: Path) -> int:
    """Make or find a directory of unfinished work, and lock it."""
    for _ in range(_CLAIMS):
        staging.mkdir(mode=0o700, exist_ok=True)
        try:
            status = staging.lstat()
        except FileNotFoundError:
            # A sweeper found it empty.
            continue
        # Whoever else can write here could add files to a model, or read one being opened.
        private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077 == 0
        if not private or status.st_uid != os.geteuid():
            raise Refused(
                "unfinished work that is not private to this user",
                check="target.unfinished",
                where=str(staging),
            )
        if (lock := _try_lock(staging)) is not None:
            return lock
        time.sleep(_CLAIM_SECONDS)
    raise Refused("another run is at it", check="target.unfinished", where=str(staging))


@contextmanager
def new_file(target: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Give a file to write; it becomes ``target`` when the block ends without an error.

    Raises as `new_directory` does.
    """
    with _staging(target) as staging:
        output = staging / _OUTPUT
        with disk_errors(target):
            fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(fd)
            _land(output, target)


def write_new_file(target: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` as the new file ``target``, whole or not at all."""
    with new_file(target, mode=mode) as file:
        file.write(data)


def replace_file(target: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write remembered state: ``target`` holds the old bytes or the new ones, never a mixture.

    Only for files the program itself keeps; outputs are never overwritten.
    """
    with _staging(target, replacing=True) as staging, disk_errors(target):
        output = staging / _OUTPUT
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        output.replace(target)
        _sync(target.parent, os.fsync)


def keep_name(target: Path) -> None:
    """Have the disk keep the name of an output whose run may have died before it asked for that."""
    with disk_errors(target):
        _sync(target.parent, os.fsync)


def check_absent(target: Path) -> None:
    """Refuse a ``target`` that exists, before any long work is done for it."""
    if os.path.lexists(target):
        raise Refused(
            "already there; it is never overwritten",
            check="target.exists",
            where=str(target),
            hint="move it away or choose another name",
        )


def check_new_file(target: Path) -> None:
    """Refuse a ``target`` that exists, or that has no directory to be written into."""
    check_absent(target)
    parent = target.parent
    if not os.path.lexists(parent):
        hint = "make that folder first"
        raise Unavailable("no such file or directory", where=str(parent), hint=hint)
    with disk_errors(parent):
        if not stat.S_ISDIR(parent.stat().st_mode):
            raise Refused("is no directory", check="target.parent", where=str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Unavailable("cannot be written here", where=str(parent))


def check_folder(target: Path) -> None:
    """Refuse a folder, made or still to be made, that nothing can be written into."""
    known = target.absolute()
    while not os.path.lexists(known):
        known = known.parent
    with disk_errors(known):
        if not stat.S_ISDIR(known.stat().st_mode):
            raise Refused("is no directory", check="target.parent", where=str(known))
    if not os.access(known, os.W_OK | os.X_OK):
        raise Unavailable("cannot be written here", where=str(known))


def check_space(directory: Path, *, size_bytes: int, files: int = 1) -> None:
    """Raise `Unavailable` with both sizes where ``directory`` has no room for the output."""
    with disk_errors(directory):
        disk = os.statvfs(directory)
    # Each file and directory may waste most of a block.
    needed = size_bytes + (files + 2) * disk.f_frsize
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise Unavailable(
            f"disk too small: {needed} bytes needed, {free} free",
            where=str(_outside(directory)),
            hint=_MAKE_ROOM,
        )
    if disk.f_files and files > disk.f_favail:
        raise Unavailable(
            f"disk too small: {files} files to make, room for {disk.f_favail}",
            where=str(_outside(directory)),
            hint=_MAKE_ROOM,
        )


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn an `OSError` into `Unavailable`: the disk is full, gone, or not ours to use."""
    try:
        yield
    except OSError as error:
        full = "disk full: " if error.errno in _FULL else ""
        words = (error.strerror or type(error).__name__).lower()
        hint = _MAKE_ROOM if full else None
        raise Unavailable(f"{full}{words}", where=str(_outside(where)), hint=hint) from error


def _outside(path: Path) -> Path:
    """Return the folder that a path is in, where the path is one that nobody was told of."""
    hidden = [each for each in (path, *path.parents) if _UNFINISHED.match(each.name)]
    return hidden[-1].parent if hidden else path


def sweep(directory: Path) -> None:
    """Remove the staging directories that killed runs of this user left in ``directory``."""
    with disk_errors(directory):
        left = [Path(e.path) for e in os.scandir(directory) if _is_dead(e)]
    for staging in left:
        with disk_errors(staging):
            _sweep_one(staging)


def _is_dead(entry: os.DirEntry[str]) -> bool:
    """Whether a directory is a staging one, or of unfinished work with nothing in it any more."""
    if _UNFINISHED.match(entry.name):
        return not os.path.lexists(Path(entry.path) / _OUTPUT)
    return _STAGING.match(entry.name) is not None


def _sweep_one(staging: Path) -> None:
    # In a directory that everybody can write to, a name is not enough: nobody may have us
    # follow his link, or remove what is not ours.
    with suppress(FileNotFoundError):
        status = staging.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
    lock = _try_lock(staging)
    if lock is None:
        return
    try:
        _remove(staging)
    except OSError as error:
        # Its maker, who had not locked it yet, may have put his lock back at this moment; one who
        # had just unlinked his may have removed the directory before we could.
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
    finally:
        os.close(lock)


@contextmanager
def _staging(target: Path, *, replacing: bool = False) -> Iterator[Path]:
    """Make, lock and in the end remove a staging directory beside ``target``."""
    if not replacing:
        check_absent(target)
    sweep(target.parent)
    with disk_errors(target.parent):
        staging, lock = _make_staging(target)
    try:
        yield staging
    finally:
        # A failure to clean up must not hide why we clean up; the next landing tries again.
        with suppress(OSError):
            _remove(staging)
        os.close(lock)


def _make_staging(target: Path) -> tuple[Path, int]:
    while True:
        name = f".{_kept_name(target)}.custody-{secrets.token_hex(8)}.partial"
        staging = target.parent / name
        staging.mkdir(mode=0o700)
        lock = _try_lock(staging)
        # Another run may have swept it between our mkdir and our lock.
        if lock is not None:
            return staging, lock


def _kept_name(target: Path) -> str:
    return target.name.encode()[:_NAME_KEPT_BYTES].decode(errors="ignore")


def _try_lock(staging: Path) -> int | None:
    """Lock a staging directory; None where a live run has it, or it is gone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(staging / _LOCK, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    # Locked, but is it still the file of that name?  A sweeper that came first has unlinked it.
    if os.fstat(lock).st_nlink == 0:
        os.close(lock)
        return None
    return lock


def _remove(staging: Path) -> None:
    output = staging / _OUTPUT
    if output.is_dir() and not output.is_symlink():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)
    # The lock goes last: while anything is left, what is left can be found and swept.
    (staging / _LOCK).unlink(missing_ok=True)
    staging.rmdir()


def _land(output: Path, target: Path) -> None:
    try:
        rename_new(output, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
            check_absent(target)
        raise
    _sync(target.parent, os.fsync)


def _sync_tree(directory: Path) -> None:
    paths = [directory, *directory.rglob("*")]
    if len(paths) <= _SYNCED_EACH:
        for path in paths:
            _sync(path, os.fsync)
    else:
        _sync(directory, sync_filesystem)


def _sync(path: Path, call: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        call(fd)
    finally:
        os.close(fd)
