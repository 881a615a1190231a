"""Where a log keeps its hashes and entries.  Format: C2SP tlog-tiles; checkpoint.md, "Tiles"."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from custody.errors import Malformed

HASH_BYTES = 32
#: Hashes in a full tile, entries in a full bundle.
TILE_WIDTH = 256
TILE_HEIGHT = 8
TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 0xFFFF
MAX_BUNDLE_BYTES = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
CHECKPOINT_PATH = "checkpoint"

_NUMBER = r"0|[1-9][0-9]*"
_PATH = re.compile(
    rf"tile/(entries|{_NUMBER})/((?:x[0-9]{{3}}/)*[0-9]{{3}})(?:\.p/({_NUMBER}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class TilePlace:
    """One tile, or with ``level`` None one bundle of entries; ``width`` is 256 for a full one."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def path(self) -> str:
        """Write its path below the log's prefix."""
        digits = f"{self.index:03}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{number}{partial}"


def parse_path(path: str) -> TilePlace:
    """Read a path as `TilePlace.path` writes it; anything else is `Malformed`."""
    match = _PATH.fullmatch(path)
    if match is None or len(path) > 64:
        raise Malformed("not the path of a tile")
    level = None if match[1] == "entries" else int(match[1])
    width = TILE_WIDTH if match[3] is None else int(match[3])
    place = TilePlace(level, int(re.sub("[x/]", "", match[2])), width)
    if (level or 0) > MAX_LEVEL or width == 0 or place.path() != path:
        raise Malformed("not the path of a tile")
    return place


def split_tile(data: bytes, width: int) -> tuple[bytes, ...]:
    """Cut a tile into its hashes."""
    if len(data) != width * HASH_BYTES:
        raise Malformed(f"not a tile of {width} hashes")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def join_bundle(entries: Sequence[bytes]) -> bytes:
    """Write a bundle: each entry behind its length, u16 big-endian."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def split_bundle(data: bytes, width: int) -> tuple[bytes, ...]:
    """Read a bundle of ``width`` entries."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if len(data) < max(end, at + 2):
            raise Malformed("a bundle that ends within an entry")
        entries.append(data[at + 2 : end])
        at = end
    if len(entries) != width:
        raise Malformed(f"not a bundle of {width} entries")
    return tuple(entries)
