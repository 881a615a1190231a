from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.merkle import leaf_hash, root
from custody.encoding import sha256
from tests.unit.crypto.vectors import Vector, each


def by_definition(rows: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 word for word: split at the largest power of two below n."""
    if not rows:
        return sha256()
    if len(rows) == 1:
        return sha256(b"\x00", rows[0])
    half = 1 << ((len(rows) - 1).bit_length() - 1)
    return sha256(b"\x01", by_definition(rows[:half]), by_definition(rows[half:]))


@each("merkle/roots.txt", "rows", "root")
def test_known_roots(vector: Vector) -> None:
    """The tree heads that every Certificate Transparency implementation knows."""
    rows = [bytes.fromhex(row.replace("-", "")) for row in vector["rows"].split()]
    assert vector["root"] == root(map(leaf_hash, rows)).hex()


@given(st.lists(st.binary(max_size=4), max_size=80))
def test_streaming_is_the_definition(rows: list[bytes]) -> None:
    """Folding as the rows come gives what the recursive definition gives."""
    assert by_definition(rows) == root(map(leaf_hash, rows))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20), st.data())
def test_any_change_changes_the_head(rows: list[bytes], data: st.DataObject) -> None:
    """Changing, dropping or repeating a row gives another head."""
    head = root(map(leaf_hash, rows))
    at = data.draw(st.integers(0, len(rows) - 1))
    for other in (
        [*rows[:at], rows[at] + b"x", *rows[at + 1 :]],
        [*rows[:at], *rows[at + 1 :]],
        [*rows, rows[-1]],
    ):
        assert head != root(map(leaf_hash, other))


def test_an_inner_node_is_no_leaf() -> None:
    """The concatenation of two leaf hashes, offered as a row, has another head."""
    pair = [leaf_hash(b"a"), leaf_hash(b"b")]
    assert root(pair) != root([leaf_hash(b"".join(pair))])


def test_memory_is_one_hash_per_level() -> None:
    """A hundred thousand rows pass through a few kilobytes."""
    tracemalloc.start()
    root(leaf_hash(n.to_bytes(4, "big")) for n in range(100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000
