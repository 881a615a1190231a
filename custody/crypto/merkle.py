"""Merkle tree heads and proofs: RFC 6962 section 2.1, with SHA-256."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from custody.encoding import sha256
from custody.errors import Refused

# The prefixes keep an inner node from being passed off as a leaf (RFC 6962 section 2.1).
_LEAF = b"\x00"
_NODE = b"\x01"


def leaf_hash(row: bytes) -> bytes:
    """Hash one row of a list (32 bytes)."""
    return sha256(_LEAF, row)


def root(hashes: Iterable[bytes]) -> bytes:
    """Return the tree head (32 bytes) over leaf hashes in order, keeping at most one per level.

    The head of no leaves is SHA-256 of nothing, as the RFC has it.
    """
    # Each entry heads a complete subtree; their sizes are the bits of the count, largest first.
    full: list[bytes] = []
    for count, digest in enumerate(hashes, 1):
        full.append(digest)
        merges = (count & -count).bit_length() - 1
        for _ in range(merges):
            right = full.pop()
            full[-1] = sha256(_NODE, full[-1], right)
    if not full:
        return sha256()
    head = full.pop()
    while full:
        head = sha256(_NODE, full.pop(), head)
    return head


class Span(NamedTuple):
    """The rows from ``start`` up to, not including, ``end``: a subtree that a proof names."""

    start: int
    end: int


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into one (32 bytes)."""
    return sha256(_NODE, left, right)


def fold(hashes: Sequence[bytes]) -> bytes:
    """Head a complete subtree (32 bytes) over a power of two of leaf or subtree hashes."""
    level = hashes
    while len(level) > 1:
        level = [sha256(_NODE, level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def inclusion_spans(index: int, size: int) -> tuple[Span, ...]:
    """Name the subtrees of row ``index``'s audit path, from its sibling up (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("no such row")
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return tuple(reversed(spans))


def consistency_spans(old: int, new: int) -> tuple[Span, ...]:
    """Name the subtrees that show a tree of ``old`` rows inside one of ``new`` (RFC 6962, 2.1.2).

    Nothing needs showing from the empty tree, or from a tree to itself.
    """
    if not 0 <= old <= new:
        raise ValueError("the old tree is larger than the new one")
    if old in {0, new}:
        return ()
    spans: list[Span] = []
    start, end = 0, new
    while end != old:
        middle = start + _left(end - start)
        if old <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    # The old tree as a whole is what the verifier has; only a part of it must be told.
    if start:
        spans.append(Span(start, end))
    return tuple(reversed(spans))


def span_hash(span: Span, node: Callable[[int, int], bytes]) -> bytes:
    """Head the rows of ``span`` (32 bytes), which begins where a subtree of its size may.

    ``node(height, index)`` gives the head of the complete subtree of ``2**height`` rows that
    begins at row ``index * 2**height``.
    """
    start, end = span
    heads: list[bytes] = []
    while start < end:
        height = (end - start).bit_length() - 1
        heads.append(node(height, start >> height))
        start += 1 << height
    head = heads.pop()
    while heads:
        head = sha256(_NODE, heads.pop(), head)
    return head


def verify_inclusion(
    leaf: bytes, index: int, *, size: int, proof: Sequence[bytes], head: bytes
) -> None:
    """Refuse (``log.inclusion``) unless ``leaf`` is row ``index`` under ``head``.

    RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise Refused("the tree has no such row", check="log.inclusion")
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Refused("the inclusion proof is too long", check="log.inclusion")
        if place & 1 or place == last:
            found = sha256(_NODE, sibling, found)
            place, last = _climb(place, last)
        else:
            found = sha256(_NODE, found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != head:
        raise Refused("the inclusion proof does not lead to the tree's head", check="log.inclusion")


def verify_consistency(
    old: int, old_head: bytes, new: int, new_head: bytes, *, proof: Sequence[bytes]
) -> None:
    """Refuse (``log.consistency``) unless the new tree begins with the old one.

    RFC 9162 section 2.1.4.2; sizes in rows.
    """
    if old > new:
        raise Refused("the new tree is the smaller one", check="log.consistency")
    if old in {0, new}:
        if proof or (old == new and old_head != new_head) or (old == 0 and old_head != root(())):
            raise _inconsistent()
        return
    path = list(proof)
    # A whole subtree is its own first step, and is not sent.
    if old & (old - 1) == 0:
        path.insert(0, old_head)
    if not path:
        raise _inconsistent()
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    found_old = found_new = path[0]
    for step in path[1:]:
        if last == 0:
            raise _inconsistent()
        if place & 1 or place == last:
            found_old = sha256(_NODE, step, found_old)
            found_new = sha256(_NODE, step, found_new)
            place, last = _climb(place, last)
        else:
            found_new = sha256(_NODE, found_new, step)
        place, last = place >> 1, last >> 1
    if last or found_old != old_head or found_new != new_head:
        raise _inconsistent()


def inclusion_subtrees(
    leaf: bytes, index: int, *, size: int, proof: Sequence[bytes], head: bytes
) -> tuple[tuple[Span, bytes], ...]:
    """Verify as `verify_inclusion`; return the complete subtrees that the proof shows, with heads.

    Whatever else begins with the same rows has them too: a log's later heads, for one.
    """
    verify_inclusion(leaf, index, size=size, proof=proof, head=head)
    place, found = Span(index, index + 1), leaf
    shown = [(place, found)]
    for span, sibling in zip(inclusion_spans(index, size), proof, strict=True):
        left = span.start < place.start
        found = node_hash(sibling, found) if left else node_hash(found, sibling)
        place = Span(min(place.start, span.start), max(place.end, span.end))
        shown += [(span, sibling), (place, found)]
    return tuple((span, known) for span, known in shown if _is_complete(span))


def consistency_subtrees(
    old: int, new: int, *, proof: Sequence[bytes], head: bytes, old_head: bytes | None
) -> tuple[bytes, tuple[tuple[Span, bytes], ...]]:
    """Say which tree of ``old`` rows a proof shows ``head``, of ``new`` rows, to begin with.

    Returns its head, and complete subtrees.  A proof from a power of two holds nothing of the old
    tree: there ``old_head`` is asked, and elsewhere it is not.  Raises `Refused`
    (``log.consistency``) where the proof does not lead to ``head``.
    """
    if not 0 <= old <= new:
        raise Refused("the new tree is the smaller one", check="log.consistency")
    if old in {0, new}:
        if proof:
            raise _inconsistent()
        return (root(()) if old == 0 else head), ()
    spans, path = list(consistency_spans(old, new)), list(proof)
    if old & (old - 1) == 0:
        if old_head is None:
            raise _inconsistent()
        spans, path = [Span(0, old), *spans], [old_head, *path]
    if len(path) != len(spans):
        raise _inconsistent()
    place, begun = spans[0], path[0]
    found, shown = begun, [(place, begun)]
    for span, sibling in zip(spans[1:], path[1:], strict=True):
        if span.start < place.start:
            begun, found = node_hash(sibling, begun), node_hash(sibling, found)
        else:
            found = node_hash(found, sibling)
        place = Span(min(place.start, span.start), max(place.end, span.end))
        shown += [(span, sibling), (place, found)]
    if found != head:
        raise _inconsistent()
    return begun, tuple((span, known) for span, known in shown if _is_complete(span))


def _is_complete(span: Span) -> bool:
    """Whether a subtree of some tree is full: such a one never changes as the tree grows."""
    count = span.end - span.start
    return count & (count - 1) == 0 and span.start % count == 0


def _left(count: int) -> int:
    """Return how many of ``count`` rows (at least 2) go left: a power of two below it."""
    return 1 << ((count - 1).bit_length() - 1)


def _climb(place: int, last: int) -> tuple[int, int]:
    """Pass the levels at which the last row's subtree has no sibling to its right."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _inconsistent() -> Refused:
    return Refused("the new tree does not begin with the old one", check="log.consistency")
