"""Memory for plaintext that stays here: out of core dumps, of forked children and of swap."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

from custody.crypto.secret import wipe
from custody.ops.linux import in_huge_pages, keep_private, libc

_WIPED_AT_ONCE_BYTES = 1 << 18


class SecretMemory:
    """Private pages, zeroed at `close`; page-aligned.

    They are never in a core dump nor in a forked child.  ``locked`` says whether they are also
    kept from swap, which RLIMIT_MEMLOCK may not allow (8 MiB by default, without CAP_IPC_LOCK).
    """

    def __init__(self, size_bytes: int) -> None:
        """Map ``size_bytes``; raises `MemoryError` where there are none."""
        try:
            self._map = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no {size_bytes} bytes to be had") from error
        keep_private(self._map)
        in_huge_pages(self._map, 0, size_bytes)
        self.locked = _lock(self._map, size_bytes)
        self.view = memoryview(self._map)[:size_bytes]

    def close(self) -> None:
        """Zero the pages, and give them back once nobody refers to them any more."""
        with suppress(ValueError):
            zero(self.view)
            self.view.release()
        # A traceback or a slow reader may still hold a view; it sees zeros.
        with suppress(BufferError):
            self._map.close()


def zero(view: memoryview) -> None:
    """Overwrite ``view`` with zeros, with no second buffer of its size."""
    for begin in range(0, len(view), _WIPED_AT_ONCE_BYTES):
        wipe(view[begin : begin + _WIPED_AT_ONCE_BYTES])


def _lock(memory: mmap.mmap, size_bytes: int) -> bool:
    call = getattr(libc(), "mlock", None)
    if call is None or os.name != "posix":
        return False
    anchor = ctypes.c_char.from_buffer(memory)
    try:
        return not call(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size_bytes))
    finally:
        # While it lives, the mapping cannot be closed.
        del anchor
