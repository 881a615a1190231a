from __future__ import annotations

import pytest

from custody.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.checkpoint import decode_checkpoint, sign_checkpoint
from custody.formats.logproof import decode_proof
from custody.formats.logstate import SeenLogs
from custody.log.reader import Conflict, Followed, follow
from custody.log.tree import Tree
from custody.log.writer import Writer
from tests.sim.store import MemoryStore
from tests.unit.log.logs import NOTHING, entries, grown, head, signer, trust


def followed(store: MemoryStore, seen: SeenLogs = NOTHING) -> Followed:
    """Follow a log that must be fit to be believed."""
    found = follow(store, trust(), seen)
    assert isinstance(found, Followed)
    return found


def tree_of(store: MemoryStore) -> Tree:
    """The tree of a log."""
    checkpoint = decode_checkpoint(store.objects["checkpoint"]).checkpoint
    return Tree(store, size=checkpoint.size, head=checkpoint.root)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_792])
def test_trees_of_every_shape(size: int) -> None:
    """At the borders of tiles: heads, proofs and entries are those of the definition."""
    store, _ = grown(size, batch=30_000)
    rows = entries(0, size)
    tree = tree_of(store)
    for old in {0, 1, size // 2, size - 1, size} & set(range(size + 1)):
        assert head(rows[:old]).root == tree.head_at(old)
        proof = tree.consistency(old)
        verify_consistency(old, tree.head_at(old), size, tree.head, proof=proof)
    for index in {0, size // 3, size - 1} & set(range(size)):
        verify_inclusion(
            leaf_hash(rows[index]), index, size=size, proof=tree.inclusion(index), head=tree.head
        )
        assert [(index, rows[index])] == list(tree.entries(index, index + 1))
    assert leaf_hash(rows[-1]) == tree.leaf(size - 1) if size else tree.head == head([]).root


def test_partial_tiles_may_be_gone() -> None:
    """An old checkpoint is read from the full tiles that its partial ones have become."""
    store, ledger = grown(300)
    old = decode_checkpoint(store.objects["checkpoint"]).checkpoint
    Writer(store, signer(), ledger).append(entries(300, 70_000)[:65_536])
    for path in [path for path in store.objects if ".p/" in path]:
        if not path.startswith("tile/1"):
            del store.objects[path]
    tree = Tree(store, size=old.size, head=old.root)
    assert entries(0, 300) == [entry for _, entry in tree.entries(0, 300)]


def test_following_reads_only_what_is_new() -> None:
    """A held log is verified by a few tiles, and its new entries without the old ones."""
    store, ledger = grown(70_000, batch=35_000)
    first = followed(store)
    seen = first.remember(NOTHING)
    Writer(store, signer(), ledger).append(entries(70_000, 70_010))
    store.reads.clear()
    second = followed(store, seen)
    assert (70_000, 70_010) == (second.seen, second.tree.size)
    assert entries(70_000, 70_010) == [entry for _, entry in second.new_entries()]
    assert len(store.reads) <= 8


def test_a_million_entries_are_followed_by_a_few_tiles() -> None:
    """Growing by one batch, a log of 10⁶ entries costs its reader ten objects and one bundle."""
    store, ledger = grown(1_000_000, batch=60_000)
    seen = followed(store).remember(NOTHING)
    Writer(store, signer(), ledger).append(entries(0, 100, salt="new"))
    store.reads.clear()
    found = followed(store, seen)
    assert entries(0, 100, salt="new") == [entry for _, entry in found.new_entries()]
    assert len(store.reads) <= 10
    store.reads.clear()
    found.prove(123_456).check_entry(entries(123_456, 123_457)[0])
    assert len(store.reads) <= 2


def test_a_proof_is_good_offline() -> None:
    """A proof file carries everything: it verifies with the policy and the entry alone."""
    store, _ = grown(1000)
    found = followed(store)
    index = found.find(entries(700, 701)[0])
    assert 700 == index
    proof = decode_proof(found.prove(700).encode())
    trust().judge(proof.signed)
    proof.check_entry(entries(700, 701)[0])
    with pytest.raises(Refused) as refused:
        proof.check_entry(entries(701, 702)[0])
    assert "log.inclusion" == refused.value.check
    assert None is found.find(b"never logged")


def test_a_rewound_log_is_shown_with_both_heads() -> None:
    """A checkpoint older than the one remembered is a rollback; both are handed over."""
    store, ledger = grown(10)
    early = store.objects["checkpoint"]
    Writer(store, signer(), ledger).append(entries(10, 20))
    late = store.objects["checkpoint"]
    seen = followed(store).remember(NOTHING)
    store.objects["checkpoint"] = early
    found = follow(store, trust(), seen)
    assert Conflict("rollback", decode_checkpoint(late), decode_checkpoint(early)) == found
    assert "log.rollback" == found.refusal().check


@pytest.mark.parametrize("size", [10, 11, 300])
def test_a_forked_log_is_shown_with_both_heads(size: int) -> None:
    """Another history of the same or a larger size, however well signed, is a fork."""
    store, _ = grown(10)
    mine = store.objects["checkpoint"]
    seen = followed(store).remember(NOTHING)
    other, _ = grown(size, salt="other")
    found = follow(other, trust(), seen)
    theirs = other.objects["checkpoint"]
    assert Conflict("fork", decode_checkpoint(mine), decode_checkpoint(theirs)) == found
    assert "log.fork" == found.refusal().check


def test_a_split_view_is_found_from_either_side() -> None:
    """Two readers who were shown different logs need only exchange their heads."""
    store, _ = grown(10)
    other, _ = grown(12, salt="other")
    for one, two in ((store, other), (other, store)):
        found = follow(two, trust(), followed(one).remember(NOTHING))
        assert isinstance(found, Conflict)


def test_memories_of_several_logs_lie_side_by_side() -> None:
    """Remembering one log forgets no other, and an update replaces its own line."""
    store, ledger = grown(1)
    seen = followed(store).remember(NOTHING)
    Writer(store, signer(), ledger).append(entries(1, 2))
    again = followed(store, seen).remember(seen)
    assert 1 == len(again.logs)
    assert store.objects["checkpoint"] == again.logs[0].note


def _some_paths() -> list[str]:
    store, _ = grown(600)
    return sorted(path for path in store.objects if path.startswith("tile/"))


@pytest.mark.parametrize("path", _some_paths())
@pytest.mark.parametrize("how", ["changed", "cut", "longer", "gone"])
def test_a_bad_tile_is_named(path: str, how: str) -> None:
    """A tile that is corrupted, cut, too long or missing stops its reader, who says which one."""
    store, _ = grown(600)
    good = store.objects[path]
    if how == "gone":
        del store.objects[path]
    else:
        changed = bytes([good[0], good[1] ^ 1]) + good[2:]
        store.objects[path] = {"changed": changed, "cut": good[:-1], "longer": good + b"x"}[how]
    with pytest.raises((Refused, Unavailable, Malformed)) as refused:
        list(followed(store).tree.entries(0, 600))
    if isinstance(refused.value, Refused):
        assert "log.tile" == refused.value.check
    # A wrong tile at the edge gives a wrong root, and could be any of those there.
    if ".p/" not in path or how in {"gone", "cut"}:
        assert path == refused.value.where


def test_tiles_of_another_log_are_refused() -> None:
    """A checkpoint over tiles that it does not commit to is refused, whoever signed it."""
    store, _ = grown(600)
    lie = head(entries(0, 600, salt="other"))
    store.objects["checkpoint"] = sign_checkpoint(lie, signer()).encode()
    with pytest.raises(Refused) as refused:
        follow(store, trust(), NOTHING)
    assert "log.tile" == refused.value.check


def test_no_log_is_served() -> None:
    """An empty place is unavailable, not an empty log."""
    with pytest.raises(Unavailable):
        follow(MemoryStore(), trust(), NOTHING)


def test_a_log_without_its_witnesses_is_incomplete() -> None:
    """What a policy demands is demanded before anything else is read."""
    from tests.unit.formats.test_logpolicy import two_of_three

    store, _ = grown(3)
    with pytest.raises(Incomplete):
        follow(store, two_of_three(), NOTHING)
    assert "tile/0/000.p/3" not in store.reads


def test_a_fork_without_witnesses_is_a_fork() -> None:
    """A head that only the log has signed proves that the log signed two histories."""
    from tests.unit.formats.test_logpolicy import two_of_three

    store, _ = grown(3)
    seen = followed(store).remember(NOTHING)
    other, _ = grown(3, salt="other")
    assert isinstance(follow(other, two_of_three(), seen), Conflict)
