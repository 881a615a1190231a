from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.merkle import (
    consistency_spans,
    fold,
    inclusion_spans,
    leaf_hash,
    node_hash,
    root,
    span_hash,
    verify_consistency,
    verify_inclusion,
)
from custody.errors import Refused
from tests.unit.crypto.vectors import Vector, each

LEAVES = [leaf_hash(b"%d" % n) for n in range(70)]


def node(height: int, index: int) -> bytes:
    """The head of a subtree of the leaves."""
    return fold(LEAVES[index << height : (index + 1) << height])


def audit_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1 word for word."""
    if len(leaves) <= 1:
        return []
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < half:
        return [*audit_path(index, leaves[:half]), root(leaves[half:])]
    return [*audit_path(index - half, leaves[half:]), root(leaves[:half])]


def subproof(old: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2 word for word."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    if old <= half:
        return [*subproof(old, leaves[:half], whole=whole), root(leaves[half:])]
    return [*subproof(old - half, leaves[half:], whole=False), root(leaves[:half])]


@pytest.mark.parametrize("size", range(1, 41))
def test_every_inclusion_proof_of_small_trees(size: int) -> None:
    """Each is the RFC's, verifies, and no other row, size, order or length of it does."""
    head = root(LEAVES[:size])
    for index in range(size):
        proof = [span_hash(span, node) for span in inclusion_spans(index, size)]
        assert audit_path(index, LEAVES[:size]) == proof
        leaf = LEAVES[index]
        verify_inclusion(leaf, index, size=size, proof=proof, head=head)
        wrong = [
            (leaf, index, size, [*proof, head], head),
            (leaf, index, size, proof[:-1], head) if proof else (bytes(32), 0, 1, [], head),
            (bytes(32), index, size, proof, head),
            (leaf, index, size, proof, bytes(32)),
            (leaf, size, size, proof, head),
        ]
        wrong += [(leaf, other, size, proof, head) for other in range(size) if other != index]
        for given_leaf, at, count, hashes, top in wrong:
            with pytest.raises(Refused) as refused:
                verify_inclusion(given_leaf, at, size=count, proof=hashes, head=top)
            assert "log.inclusion" == refused.value.check


@pytest.mark.parametrize("new", range(41))
def test_every_consistency_proof_of_small_trees(new: int) -> None:
    """Each is the RFC's, verifies, and fails with any hash changed, added or missing."""
    new_head = root(LEAVES[:new])
    for old in range(new + 1):
        old_head = root(LEAVES[:old])
        proof = [span_hash(span, node) for span in consistency_spans(old, new)]
        if old:
            assert subproof(old, LEAVES[:new], whole=True) == proof
        verify_consistency(old, old_head, new, new_head, proof=proof)
        wrong = [
            (bytes(32), new_head, proof),
            (old_head, new_head, [*proof, new_head]),
            *((old_head, new_head, [*proof[:n], *proof[n + 1 :]]) for n in range(len(proof))),
            *(
                (old_head, new_head, [*proof[:n], bytes(32), *proof[n + 1 :]])
                for n in range(len(proof))
            ),
        ]
        if old:
            wrong.append((old_head, bytes(32), proof))
        for first, last, hashes in wrong:
            with pytest.raises(Refused) as refused:
                verify_consistency(old, first, new, last, proof=hashes)
            assert "log.consistency" == refused.value.check


def test_a_tree_does_not_shrink() -> None:
    """From a larger tree to a smaller one nothing is proven."""
    with pytest.raises(Refused):
        verify_consistency(3, root(LEAVES[:3]), 2, root(LEAVES[:2]), proof=[])
    with pytest.raises(ValueError, match="larger"):
        consistency_spans(3, 2)
    with pytest.raises(ValueError, match="no such row"):
        inclusion_spans(3, 3)


def test_a_fork_has_no_proof() -> None:
    """The honest proof of another history does not lead from this one."""
    forked = [*LEAVES[:20], leaf_hash(b"other"), *LEAVES[21:40]]

    def other(height: int, index: int) -> bytes:
        return fold(forked[index << height : (index + 1) << height])

    proof = [span_hash(span, other) for span in consistency_spans(30, 40)]
    verify_consistency(30, root(forked[:30]), 40, root(forked), proof=proof)
    with pytest.raises(Refused):
        verify_consistency(30, root(LEAVES[:30]), 40, root(forked), proof=proof)


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
)
def test_invented_proofs_are_refused(old: int, new: int, proof: list[bytes]) -> None:
    """Whatever hashes are offered for trees of any size, verifying ends, and refuses."""
    with pytest.raises(Refused):
        verify_inclusion(bytes(32), old, size=new, proof=proof, head=bytes(32))
    with pytest.raises(Refused):
        verify_consistency(old, bytes(32), new, b"\x01" * 32, proof=proof)


@each("merkle/proofs.txt", "rows", "index", "old", "size", "proof")
def test_known_proofs(vector: Vector) -> None:
    """The proofs that every Certificate Transparency implementation knows."""
    rows = [bytes.fromhex(row.replace("-", "")) for row in vector["rows"].split()]
    leaves = [leaf_hash(row) for row in rows]
    size = int(vector["size"])
    proof = [bytes.fromhex(line) for line in vector["proof"].split()]

    def mine(height: int, index: int) -> bytes:
        return fold(leaves[index << height : (index + 1) << height])

    if "index" in vector:
        index = int(vector["index"])
        assert proof == [span_hash(span, mine) for span in inclusion_spans(index, size)]
        verify_inclusion(leaves[index], index, size=size, proof=proof, head=root(leaves[:size]))
    else:
        old = int(vector["old"])
        assert proof == [span_hash(span, mine) for span in consistency_spans(old, size)]
        verify_consistency(old, root(leaves[:old]), size, root(leaves[:size]), proof=proof)


def test_two_subtrees_are_hashed_as_nodes() -> None:
    """The head over two leaves is their node."""
    assert root(LEAVES[:2]) == node_hash(LEAVES[0], LEAVES[1])
