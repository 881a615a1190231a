"""Linux calls that Python does not wrap, each with what to do where they are missing."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

_ABSENT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_START_WRITING = 2
#: The same on every machine Linux runs on since system calls are numbered alike.
_CACHESTAT = 451
#: madvise(2), Linux 4.14.  The mmap module has no name for it.
_MADV_WIPEONFORK = 18
_BEHIND_BYTES = 64 << 20
#: Each reserving waits until nobody writes to the file, and lets nobody begin.
_RESERVED_BYTES = 1 << 30
#: Below this a file's pages in the cache are cheaper than its own trips to the disk.
_DIRECT_BYTES = 16 << 20
_BLOCK_BYTES = 4096
#: Of x86-64, and of ARM with pages of 4 KiB.
_HUGE_BYTES = 2 << 20
#: linux/magic.h; struct statfs begins with it, and has 120 bytes.
_TMPFS = 0x01021994
_STATFS_LONGS = 32


@cache
def libc() -> ctypes.CDLL:
    """Return the C library; a call it lacks is looked up by `getattr`."""
    return ctypes.CDLL(None, use_errno=True)


class NewFile:
    """A file of known size, written from several threads and reserved on disk as it grows.

    On a block device whole blocks go past the page cache (O_DIRECT): no copy, no eviction of what
    others have there, no plaintext left in it, and nothing for the fsync at the end to wait for.
    Where the disk will not have that, and in memory, writes are ordinary ones, of which
    ``written_behind`` leaves few pages dirty.

    Reserving keeps a file of hundreds of GB in few extents.  It is done a stretch at a time, by
    whoever writes there first, so that nobody waits for all of it; and only on a block device:
    in memory it makes every page twice, and elsewhere (major number 0) there are no extents.
    """

    def __init__(self, fd: int, size_bytes: int, *, written_behind: bool = False) -> None:
        """Take a file open for writing; closing it is the caller's, after `close`."""
        self._fd = fd
        self._size_bytes = size_bytes
        self._extents = on_block_device(fd)
        self._behind = written_behind
        self._direct = (
            _reopen_direct(fd, os.O_WRONLY)
            if self._extents and size_bytes >= _DIRECT_BYTES
            else None
        )
        self._reserved: set[int] = set()
        self._lock = threading.Lock()

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``, however little the disk takes at a time."""
        stretch = offset - offset % _RESERVED_BYTES
        with self._lock:
            new = self._extents and stretch not in self._reserved
            self._reserved.add(stretch)
        if new:
            reserve(self._fd, stretch, min(_RESERVED_BYTES, self._size_bytes - stretch))
        done = self._write_direct(data, offset)
        if done == len(data):
            return
        begun = done
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)
        if self._behind:
            write_behind(self._fd, offset + begun, done - begun)

    def close(self) -> None:
        """Let go of what was opened beside the caller's descriptor."""
        with self._lock:
            direct, self._direct = self._direct, None
        if direct is not None:
            os.close(direct)

    def _write_direct(self, data: memoryview, offset: int) -> int:
        """Write what whole blocks there are; return how many bytes that was."""
        done = 0
        if self._direct is None or offset % _BLOCK_BYTES:
            return 0
        whole = len(data) - len(data) % _BLOCK_BYTES
        while done < whole and not done % _BLOCK_BYTES:
            try:
                done += os.pwrite(self._direct, data[done:whole], offset + done)
            except OSError as error:
                # Its blocks are larger, or our memory is not aligned to them.
                if error.errno != errno.EINVAL:
                    raise
                break
        return done


class OldFile:
    """A file read by parts, from several threads.

    What of it is not in the page cache is read past that (O_DIRECT), where it is on a block device:
    threads that read one file in several places defeat the kernel's read-ahead, and what is read
    once would push out what is read often.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        """Take a file open for reading; closing it is the caller's, after `close`."""
        self._fd = fd
        worth = size_bytes >= _DIRECT_BYTES and on_block_device(fd)
        self._direct = _reopen_direct(fd, os.O_RDONLY) if worth else None
        self._behind = is_large(size_bytes)
        read_ahead(fd)

    def read(self, view: memoryview, offset: int) -> int:
        """Read some bytes, at least one except at the end; return how many."""
        whole = len(view) - len(view) % _BLOCK_BYTES
        aligned = whole > 0 and not offset % _BLOCK_BYTES
        if self._direct is not None and aligned and _cached_bytes(self._fd, offset, whole) < whole:
            try:
                return os.preadv(self._direct, [view[:whole]], offset)
            except OSError as error:
                # Its blocks are larger, or our memory is not aligned to them.
                if error.errno != errno.EINVAL:
                    raise
        got = os.preadv(self._fd, [view], offset)
        if self._behind:
            # A copy of 700 GB must not push what the machine works with out of memory.
            drop_behind(self._fd, offset, got)
        return got

    def close(self) -> None:
        """Let go of what was opened beside the caller's descriptor."""
        direct, self._direct = self._direct, None
        if direct is not None:
            os.close(direct)


class _CacheRange(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("size_bytes", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writing", "evicted", "recent")
    )


def _cached_bytes(fd: int, offset: int, size_bytes: int) -> int:
    """Count the bytes of a range in the page cache (cachestat(2), Linux 6.5); all, if unknown."""
    asked, told = _CacheRange(offset, size_bytes), _CacheStat()
    call = getattr(libc(), "syscall", None)
    number = ctypes.c_long(_CACHESTAT)
    if call is None or call(
        number, ctypes.c_int(fd), ctypes.byref(asked), ctypes.byref(told), ctypes.c_int(0)
    ):
        return size_bytes
    return int(told.cached) * mmap.PAGESIZE


def on_block_device(fd: int) -> bool:
    """Whether a file's blocks are on a device of their own, as far as its number tells."""
    return os.major(os.fstat(fd).st_dev) != 0


def in_memory(path: Path) -> bool:
    """Whether what is written below ``path`` stays in memory: on tmpfs (statfs(2))."""
    told = (ctypes.c_long * _STATFS_LONGS)()
    call = getattr(libc(), "statfs", None)
    if call is None or call(os.fsencode(path), told):
        return False
    return int(told[0]) == _TMPFS


def link_open(fd: int, name: str | Path, *, dir_fd: int | None = None) -> None:
    """Give an open file that was made without a name (O_TMPFILE) the name ``name``.

    Raises `FileExistsError` where that is taken.
    """
    # That of its source makes it linkat(2), which follows the link in /proc; it is not looked at.
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, dst_dir_fd=dir_fd, follow_symlinks=True)


def _reopen_direct(fd: int, flags: int) -> int | None:
    """Open a file once more, past the page cache; None where that cannot be."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def keep_private(memory: mmap.mmap) -> None:
    """Keep private anonymous pages out of core dumps and of forked children, who find zeros."""
    memory.madvise(mmap.MADV_DONTDUMP)
    # Not DONTFORK: the child would have a hole there, touch it when it closes what it inherited,
    # or put something else into it and have that unmapped.
    with suppress(OSError):
        memory.madvise(_MADV_WIPEONFORK)


def private_memory(size_bytes: int) -> memoryview:
    """Map zeroed memory as `keep_private` keeps it, in huge pages where there are any.

    It begins where one does, and is unmapped once nobody refers to it any more.
    """
    size = size_bytes + _HUGE_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    keep_private(memory)
    begin = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE_BYTES
    in_huge_pages(memory, begin, size_bytes)
    return memoryview(memory)[begin : begin + size_bytes]


def in_huge_pages(memory: mmap.mmap, begin: int, size_bytes: int) -> None:
    """Ask for huge pages in ``memory`` from ``begin``, a multiple of 4 KiB, and none at its end.

    A disk's driver takes so many pieces of memory at a time and no more: of 4 KiB each that is
    1 MiB, and a trip to a virtual disk takes as long with that as with 4 MiB.
    """
    # A last one that is used in part would take memory for nothing.
    if whole := size_bytes - size_bytes % _HUGE_BYTES:
        # Not every kernel is built with them.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE, begin, whole)


def read_ahead(fd: int) -> None:
    """Say that a file will be read from front to back."""
    # Without it the kernel takes several threads on one file for random access, and fetches
    # page by page: ten times the processor time of a cold read.
    with suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def drop_behind(fd: int, offset: int, size_bytes: int) -> None:
    """Give back the page cache that a stretch of a file takes and nobody else has dirtied."""
    with suppress(OSError):
        os.posix_fadvise(fd, offset, size_bytes, os.POSIX_FADV_DONTNEED)


def write_behind(fd: int, offset: int, size_bytes: int) -> None:
    """Start writing a stretch to disk, and give back the one before, which is there by now."""
    call = getattr(libc(), "sync_file_range", None)
    if call is None:
        return
    # Errors will be told by fsync, which is what is believed.
    call(ctypes.c_int(fd), ctypes.c_int64(offset), ctypes.c_int64(size_bytes), _START_WRITING)
    if offset >= _BEHIND_BYTES:
        drop_behind(fd, offset - _BEHIND_BYTES, size_bytes)


def is_large(size_bytes: int) -> bool:
    """Whether copying so much would push everything else out of the page cache."""
    return size_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def reserve(fd: int, offset: int, size_bytes: int) -> None:
    """Reserve disk for a new file (fallocate(2)), or do nothing where no disk can.

    Not os.posix_fallocate: where the file system cannot, that writes a byte to every block.
    """
    call = getattr(libc(), "fallocate64", None)
    if call is None or size_bytes <= 0:
        return
    args = (ctypes.c_int(fd), ctypes.c_int(0), ctypes.c_int64(offset), ctypes.c_int64(size_bytes))
    while call(*args):
        number = ctypes.get_errno()
        if number in _ABSENT:
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def sync_filesystem(fd: int) -> None:
    """Bring everything on the file system of ``fd`` to disk (syncfs(2)).

    One call for ten thousand files: an fsync of each would flush the disk's cache as often.
    """
    call = getattr(libc(), "syncfs", None)
    if call is None:
        os.sync()
    elif call(ctypes.c_int(fd)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def rename_new(source: Path, target: Path) -> None:
    """Rename, raising `FileExistsError` where ``target`` exists (renameat2(2))."""
    call = getattr(libc(), "renameat2", None)
    number = errno.ENOSYS
    if call is not None:
        here = ctypes.c_int(_AT_FDCWD)
        flags = ctypes.c_uint(_RENAME_NOREPLACE)
        if not call(here, os.fsencode(source), here, os.fsencode(target), flags):
            return
        number = ctypes.get_errno()
    if number not in _ABSENT:
        raise OSError(number, os.strerror(number), str(target))
    # Some network file systems cannot.  What is left is a moment between look and rename, in
    # which a file of that name could be replaced, but never a directory with something in it.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)
