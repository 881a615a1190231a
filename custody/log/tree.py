"""A log's tree as its tiles show it, every hash checked against the head before it is used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from custody.crypto.merkle import (
    Span,
    consistency_spans,
    fold,
    inclusion_spans,
    leaf_hash,
    node_hash,
    root,
    span_hash,
)
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.tiles import (
    MAX_BUNDLE_BYTES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TilePlace,
    split_bundle,
    split_tile,
)
from custody.log.storage import Source

#: 8 MiB of tiles: all inner tiles of a log of ten million entries, and some leaves.
_CACHED_TILES = 1024

Hashes = tuple[bytes, ...]
Splitter = Callable[[bytes, int], tuple[bytes, ...]]


class Tree:
    """The tree of ``size`` entries with the head ``head``, read from ``source`` as needed.

    The partial tiles at its right edge are read at once and give the head, and every full tile is
    vouched for by a hash one level up.  So a wrong tile is `Refused` (``log.tile``) by its path,
    and whatever this class returns is what the head commits to.
    """

    def __init__(self, source: Source, *, size: int, head: bytes) -> None:
        self._source = source
        self._cache: OrderedDict[TilePlace, Hashes] = OrderedDict()
        self.size = size
        self.head = head
        self._edge = tuple(self._read_edge())
        if self.head_at(size) != head:
            raise Refused("the tiles do not give the checkpoint's root", check="log.tile")

    @property
    def edge(self) -> tuple[Hashes, ...]:
        """The partial tiles, leaves first; an empty one where the tile is just full."""
        return self._edge

    def head_at(self, size: int) -> bytes:
        """Return the head that this tree had when it had ``size`` entries."""
        if not 0 <= size <= self.size:
            raise ValueError("no such size")
        return span_hash(Span(0, size), self.node) if size else root(())

    def node(self, height: int, index: int) -> bytes:
        """Return the head of the complete subtree of ``2**height`` entries from a multiple of it.

        The shape that `merkle.span_hash` wants.
        """
        level, inner = divmod(height, TILE_HEIGHT)
        first = index << inner
        tile, at = divmod(first, TILE_WIDTH)
        return fold(self._tile(level, tile)[at : at + (1 << inner)])

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash of an entry."""
        return self.node(0, index)

    def inclusion(self, index: int) -> Hashes:
        """Prove that an entry is in this tree: the hashes of RFC 6962's audit path."""
        return tuple(span_hash(span, self.node) for span in inclusion_spans(index, self.size))

    def consistency(self, old: int) -> Hashes:
        """Prove that this tree begins with the one of ``old`` entries."""
        return self.consistency_between(old, self.size)

    def consistency_between(self, old: int, new: int) -> Hashes:
        """Prove that this tree had begun with the one of ``old`` entries when it had ``new``."""
        return tuple(span_hash(span, self.node) for span in consistency_spans(old, new))

    def entries(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield entries with their indexes, each checked against its leaf hash."""
        if not 0 <= start <= end <= self.size:
            raise ValueError("no such entries")
        at = start
        while at < end:
            tile = at // TILE_WIDTH
            base = tile * TILE_WIDTH
            bundle = self.bundle(tile)
            stop = min(end, base + len(bundle))
            for index in range(at, stop):
                yield index, bundle[index - base]
            at = stop

    def bundle(self, index: int) -> tuple[bytes, ...]:
        """Return a bundle of entries, full or the last one."""
        width = min(self.size - index * TILE_WIDTH, TILE_WIDTH)
        place = TilePlace(None, index, width)
        data, whole = self._fetch(place, max_bytes=MAX_BUNDLE_BYTES)
        entries = _named(place, split_bundle, data, TILE_WIDTH if whole else width)[:width]
        if tuple(map(leaf_hash, entries)) != self._tile(0, index)[:width]:
            raise Refused(
                "entries that the log does not commit to", check="log.tile", where=place.path()
            )
        return entries

    def _tile(self, level: int, index: int) -> Hashes:
        if index == self.size >> (TILE_HEIGHT * (level + 1)):
            return self._edge[level]
        place = TilePlace(level, index)
        if (cached := self._cache.get(place)) is not None:
            self._cache.move_to_end(place)
            return cached
        data, _ = self._fetch(place, max_bytes=TILE_BYTES)
        hashes = _named(place, split_tile, data, TILE_WIDTH)
        if fold(hashes) != self._tile(level + 1, index // TILE_WIDTH)[index % TILE_WIDTH]:
            raise Refused(
                "a tile that the log does not commit to", check="log.tile", where=place.path()
            )
        self._cache[place] = hashes
        if len(self._cache) > _CACHED_TILES:
            self._cache.popitem(last=False)
        return hashes

    def _read_edge(self) -> Iterator[Hashes]:
        count, level = self.size, 0
        while count:
            index, width = divmod(count, TILE_WIDTH)
            place = TilePlace(level, index, width or TILE_WIDTH)
            if width:
                data, whole = self._fetch(place, max_bytes=TILE_BYTES)
                hashes = _named(place, split_tile, data, TILE_WIDTH if whole else width)
                yield hashes[:width]
            else:
                yield ()
            count, level = index, level + 1

    def _fetch(self, place: TilePlace, *, max_bytes: int) -> tuple[bytes, bool]:
        """Read a tile or bundle; a partial one that is gone has become part of a full one."""
        data = self._source.read(place.path(), max_bytes=max_bytes)
        whole = place.width == TILE_WIDTH
        if data is None and not whole:
            full = TilePlace(place.level, place.index)
            data, whole = self._source.read(full.path(), max_bytes=max_bytes), True
        if data is None:
            raise Unavailable("the log does not serve it", where=place.path())
        return data, whole


def _named(place: TilePlace, split: Splitter, data: bytes, width: int) -> tuple[bytes, ...]:
    try:
        return split(data, width)
    except Malformed as error:
        raise Refused(error.reason, check="log.tile", where=place.path()) from error


@dataclass(frozen=True, slots=True)
class Growth:
    """What growing a tree writes, by path, and the right edge it has then."""

    tiles: tuple[tuple[str, bytes], ...]
    edge: tuple[Hashes, ...]

    def head(self) -> bytes:
        """Return the head (32 bytes) of the tree with this right edge."""
        parts: list[bytes] = []
        for hashes in reversed(self.edge):
            at = 0
            for height in range(TILE_HEIGHT - 1, -1, -1):
                if len(hashes) & (1 << height):
                    parts.append(fold(hashes[at : at + (1 << height)]))
                    at += 1 << height
        if not parts:
            return root(())
        head = parts.pop()
        while parts:
            head = node_hash(parts.pop(), head)
        return head


def grow(edge: Sequence[Hashes], size: int, leaves: Sequence[bytes]) -> Growth:
    """Grow a tree by ``leaves``; ``edge`` is its right edge at ``size``."""
    tiles: list[tuple[str, bytes]] = []
    grown: list[Hashes] = []
    fresh: Sequence[bytes] = leaves
    count, level = size, 0
    while fresh or count:
        index = count // TILE_WIDTH
        row = (*(edge[level] if level < len(edge) else ()), *fresh)
        up: list[bytes] = []
        for at in range(0, len(row) - TILE_WIDTH + 1, TILE_WIDTH):
            full = row[at : at + TILE_WIDTH]
            tiles.append((TilePlace(level, index + len(up)).path(), b"".join(full)))
            up.append(fold(full))
        rest = row[len(up) * TILE_WIDTH :]
        if fresh and rest:
            tiles.append((TilePlace(level, index + len(up), len(rest)).path(), b"".join(rest)))
        grown.append(rest)
        fresh, count, level = up, count // TILE_WIDTH, level + 1
    return Growth(tuple(tiles), tuple(grown))
