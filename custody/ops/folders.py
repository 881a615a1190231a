"""Reading the folders of documents that everybody is sent; single files are `ops.files`'."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from custody.crypto.der import MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES
from custody.encoding import MAX_STATEMENT_BYTES
from custody.errors import CustodyError, Malformed, Unavailable
from custody.formats.asking import Asking
from custody.formats.case import (
    MAX_FILES,
    Documents,
    Unreadable,
    documents_of,
    read_statement,
    sort_documents,
)
from custody.formats.envelope import Predicate, Statement, decode_statement
from custody.formats.logproof import MAX_PROOF_BYTES
from custody.formats.timestamp import MAX_TOKEN_BYTES
from custody.formats.witnessing import MAX_REQUEST_BYTES
from custody.ops.files import read_file, reading

__all__ = [
    "MAX_TOTAL_BYTES",
    "read_file",
    "read_folder",
    "read_request_file",
    "read_statement_file",
    "reading",
]

#: All statements, certificates and lists of one reading together.
MAX_TOTAL_BYTES = 512 << 20

_LIMITS = {
    ".dsse": MAX_STATEMENT_BYTES,
    ".cer": MAX_CERTIFICATE_BYTES,
    ".crl": MAX_CRL_BYTES,
    ".tlog-proof": MAX_PROOF_BYTES,
    ".tlog-consistency": MAX_REQUEST_BYTES,
    ".tsr": MAX_TOKEN_BYTES,
}

P = TypeVar("P", bound=Predicate)


def read_statement_file(kind: type[P], path: Path) -> Statement[P]:
    """Read one ``.dsse`` file that must carry ``kind``."""
    with reading(path):
        return decode_statement(kind, read_file(path, max_bytes=MAX_STATEMENT_BYTES))


def read_request_file(path: Path) -> Statement[Asking]:
    """Read a request of either kind."""
    with reading(path):
        statement = read_statement(read_file(path, max_bytes=MAX_STATEMENT_BYTES))
        asked = documents_of([statement]).asked
        if not asked:
            raise Malformed(f"holds {statement.predicate.PREDICATE_TYPE!r}, no request")
        return asked[0]


def read_folder(*paths: Path) -> Documents:
    """Sort the statements, certificates and revocation lists of folders and single files.

    Folders are read one level deep.  Files of other kinds are passed over; those of ours that
    cannot be read are listed as unreadable, for a rule to say whether that matters.
    """
    files: list[tuple[str, bytes]] = []
    unreadable: list[Unreadable] = []
    total_bytes = 0
    for path in paths:
        for name, found in _list(path):
            limit = _LIMITS.get(found.suffix)
            if limit is None and found != path:
                continue
            if limit is None:
                raise Malformed("not a file custody reads", where=str(path))
            try:
                data = read_file(found, max_bytes=limit)
            except CustodyError as error:
                if found == path:
                    raise
                unreadable.append(Unreadable(name=name, reason=error.reason))
                continue
            files.append((name, data))
            total_bytes += len(data)
            if len(files) > MAX_FILES or total_bytes > MAX_TOTAL_BYTES:
                raise Malformed(
                    f"more than {MAX_FILES} files or {MAX_TOTAL_BYTES >> 20} MiB", where=str(path)
                )
    heap = sort_documents(files)
    return replace(heap, unreadable=(*heap.unreadable, *unreadable))


def _list(path: Path) -> Iterator[tuple[str, Path]]:
    """Name the files of a folder, and those of its folders, in a fixed order."""
    if path.is_file():
        yield path.name, path
        return
    for entry in _scan(path):
        if entry.is_dir(follow_symlinks=False):
            for inner in _scan(Path(entry.path)):
                if not inner.is_dir(follow_symlinks=False):
                    yield f"{entry.name}/{inner.name}", Path(inner.path)
        else:
            yield entry.name, Path(entry.path)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Unavailable(f"cannot be read ({reason})", where=str(folder)) from error
    return sorted(shown, key=lambda entry: entry.name)
