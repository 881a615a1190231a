"""The confidential half of a bundle: names, sizes, digests.  Format: contents.md, version 1."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

import msgspec

from custody.crypto.parts import DIGEST_BYTES, MAX_PARTS, padme
from custody.encoding import Count, Digest, Record, Text, decode, encode
from custody.errors import Malformed
from custody.formats.frames import (
    MAX_FRAMES,
    ROW_BYTES,
    FrameTable,
    check_tiled,
    read_frames,
)

MAX_CONTENTS_BYTES = 1 << 30
_LEAST_BYTES = 1 << 20
MAX_FILES = 1_000_000
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4096
MAX_NOTES = 65_536
MAX_RUNS = 1 << 22

FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH_BYTES)]


class File(Record, frozen=True):
    """One file of the model.  ``offset`` is into the plaintext, in bytes."""

    name: FilePath
    size_bytes: Count
    sha256: Digest
    offset: Count


class Taken(Record, frozen=True):
    """A run of the plaintext, at ``offset``, that lies in a file of the base at ``file_offset``."""

    offset: Count
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    file: Annotated[int, msgspec.Meta(ge=0, lt=MAX_FILES)]
    file_offset: Count


class Base(Record, frozen=True):
    """The model that a delta is to, by its manifest, and what is taken from which of its files."""

    manifest: Digest
    files: Annotated[tuple[FilePath, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    taken: Annotated[tuple[Taken, ...], msgspec.Meta(min_length=1, max_length=MAX_RUNS)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(list(self.files))
        end = 0
        for run in self.taken:
            if run.offset < end:
                raise ValueError("taken: not in order of offset, or two runs overlap")
            end = run.offset + run.size_bytes
        if {run.file for run in self.taken} != set(range(len(self.files))):
            raise ValueError("taken: from a file that is not listed, or not from one that is")

    @property
    def size_bytes(self) -> int:
        """Sum of all that is taken."""
        return sum(run.size_bytes for run in self.taken)


class Contents(Record, frozen=True):
    """What a bundle holds, in the publisher's words and digests."""

    kind: Literal["custody/contents/v1"]
    name: Text
    version: Text
    notes: Annotated[str, msgspec.Meta(max_length=MAX_NOTES)]
    model_signature: Annotated[bytes, msgspec.Meta(min_length=2, max_length=1 << 28)]
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    part_digests: (
        Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=MAX_PARTS * DIGEST_BYTES)]
        | None
    )
    base: Base | None
    frames: Annotated[bytes, msgspec.Meta(max_length=MAX_FRAMES * ROW_BYTES)] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names([file.name for file in self.files])
        end = 0
        for file in sorted(self.files, key=lambda f: (f.offset, f.size_bytes)):
            if file.size_bytes and file.offset < end:
                raise ValueError("files: two files overlap")
            end = max(end, file.offset + file.size_bytes)
        if len(self.part_digests or b"") % DIGEST_BYTES:
            raise ValueError("partDigests: not whole digests")
        if (self.part_digests is None) != (self.base is None):
            raise ValueError("partDigests: of what is taken from a base, and of nothing else")
        last = self.base.taken[-1] if self.base else None
        if last and last.offset + last.size_bytes > end:
            raise ValueError("base: more is taken than the files have")
        if (table := self.frame_table()) is not None:
            if self.base:
                raise ValueError("frames: a delta has none")
            filled = [(file.offset, file.size_bytes) for file in self.files if file.size_bytes]
            check_tiled(table, sorted(filled))

    @property
    def end(self) -> int:
        """Offset just past the last byte of any file."""
        return max(file.offset + file.size_bytes for file in self.files)

    @property
    def stored_bytes(self) -> int:
        """How much of the parts' plaintext is used, padding aside."""
        return self.end if (table := self.frame_table()) is None else table.stored_bytes

    def frame_table(self) -> FrameTable | None:
        """Read the frames of a compressed model; None where it is not compressed."""
        return None if self.frames is None else read_frames(self.frames)

    def taken_digest(self, number: int) -> bytes:
        """Return the plaintext digest of the part that is taken as ``number`` (32 bytes)."""
        digests = self.part_digests or b""
        return digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def check_names(names: list[str]) -> None:
    """Refuse names that could leave the model's directory or meet each other on any disk.

    Raises `ValueError`, which the reader turns into `Malformed`.
    """
    if names != sorted(set(names)):
        raise ValueError("files: names are not in code-point order, each once")
    directories: set[str] = set()
    for name in names:
        _check_name(name)
        pieces = name.split("/")
        directories.update("/".join(pieces[:n]) for n in range(1, len(pieces)))
    if both := directories.intersection(names):
        raise ValueError(f"files: {min(both)!r} is a file and a directory")
    # Directories take part in collisions too: "A/x" beside "a/y" is one directory on a
    # case-folding disk.
    folded: dict[str, str] = {}
    for path in [*names, *sorted(directories)]:
        other = folded.setdefault(_fold(path), path)
        if other != path:
            raise ValueError(f"files: {path!r} and {other!r} collide where case is folded")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_name(name: str) -> None:
    if name.startswith("/") or "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError(f"files: {name!r} is absolute or has a control character or backslash")
    for piece in name.split("/"):
        if piece in ("", ".", ".."):
            raise ValueError(f"files: {name!r} has an empty, '.' or '..' component")
        try:
            size = len(piece.encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"files: {name!r} is not valid UTF-8") from error
        if size > MAX_NAME_BYTES:
            raise ValueError(f"files: a component of {name[:80]!r} is longer than 255 bytes")


def padded_size(contents: Contents) -> int:
    """Return how many bytes contents are padded to, so that their size tells no number of files.

    Tables by part taken and by frame grow with the model; what else there is, up to 1 MiB, does
    not show.
    """
    tables = sum(
        -(-len(table or b"") // 3) * 4 for table in (contents.part_digests, contents.frames)
    )
    return max(padme(8 + len(encode(contents))), padme(_LEAST_BYTES + tables))


def encode_padded(contents: Contents, size_bytes: int) -> bytes:
    """Write ``u64be length ‖ JSON ‖ zeros`` as ``size_bytes`` bytes."""
    body = encode(contents)
    if 8 + len(body) > size_bytes:
        raise ValueError("contents do not fit their padding")
    return len(body).to_bytes(8, "big") + body + bytes(size_bytes - 8 - len(body))


def decode_padded(data: bytes) -> Contents:
    """Read what `encode_padded` wrote; padding must be zeros."""
    if len(data) < 8 or len(data) > MAX_CONTENTS_BYTES:
        raise Malformed("contents have an impossible size")
    length = int.from_bytes(data[:8], "big")
    if length > len(data) - 8:
        raise Malformed("contents are shorter than they say")
    if data.count(0, 8 + length) != len(data) - 8 - length:
        raise Malformed("contents are padded with something else than zeros")
    return decode(Contents, data[8 : 8 + length], max_bytes=MAX_CONTENTS_BYTES)
