"""Reading files that strangers may have written: regular ones only, capped, each fault named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from custody.encoding import Record, decode
from custody.errors import CustodyError, Malformed, Refused, Unavailable

R = TypeVar("R", bound=Record)
#: Larger than any record of ours that is not a statement.
MAX_RECORD_BYTES = 1 << 20


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Name ``path`` in every error of ours that the block raises and that names nothing yet."""
    try:
        yield
    except CustodyError as error:
        error.where = error.where or str(path)
        raise


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """Read one regular file whole; a link, a device or an oversize file is refused."""
    with reading(path):
        try:
            # Neither a link, which would let who wrote the folder choose what we read, nor a
            # FIFO, which would make us wait for ever.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags)
        except OSError as error:
            if path.is_symlink():
                raise Refused("is a symbolic link", check="file.regular") from error
            raise Unavailable(f"cannot be read ({(error.strerror or '').lower()})") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused("is not a regular file", check="file.regular")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
        except OSError as error:
            raise Unavailable(f"cannot be read ({(error.strerror or '').lower()})") from error
        finally:
            os.close(descriptor)
        if len(data) > max_bytes:
            raise Malformed(f"larger than the {max_bytes} bytes allowed")
        return data


def read_record(kind: type[R], path: Path, *, max_bytes: int = MAX_RECORD_BYTES) -> R:
    """Read a file that holds one record; anything else in it is `Malformed`."""
    with reading(path):
        return decode(kind, read_file(path, max_bytes=max_bytes), max_bytes=max_bytes)
