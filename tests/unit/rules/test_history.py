"""Heads of one log, and what proofs at hand say of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.merkle import (
    consistency_spans,
    consistency_subtrees,
    fold,
    inclusion_spans,
    inclusion_subtrees,
    leaf_hash,
    root,
    span_hash,
)
from custody.crypto.notekeys import WitnessSigner
from custody.errors import Refused
from custody.formats.case import Documents, EntryProof
from custody.formats.checkpoint import SignedCheckpoint, cosign_checkpoint, sign_checkpoint
from custody.formats.logentry import decode_entry
from custody.formats.logpolicy import LogPolicy, decode_log_policy
from custody.formats.logproof import LogProof
from custody.formats.witnessing import CosignRequest
from custody.rules.history import History, histories_of, judge_history
from custody.rules.verdicts import Ledger
from tests.unit.log.logs import entries, head, signer, trust, witness_signer

#: A log, and its fork from row 9 on.
HONEST = entries(0, 40)
FORKED = [*HONEST[:9], *entries(9, 40, salt="other")]


def hashes(rows: list[bytes], spans: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
    """Hash spans of rows."""
    leaves = [leaf_hash(row) for row in rows]

    def node(height: int, index: int) -> bytes:
        return fold(leaves[index << height : (index + 1) << height])

    return tuple(span_hash(span, node) for span in spans)  # type: ignore[arg-type]


def signed(rows: list[bytes], size: int) -> SignedCheckpoint:
    """The head of the first rows, by the log."""
    return sign_checkpoint(head(rows[:size]), signer())


def included(rows: list[bytes], index: int, size: int) -> EntryProof:
    """Prove that a row is in the log."""
    way = hashes(rows, inclusion_spans(index, size))
    proof = LogProof(index, way, signed(rows, size), rows[index])
    return EntryProof(entry=decode_entry(rows[index]), proof=proof)


def link(rows: list[bytes], old: int, new: int) -> CosignRequest:
    """Prove that the log goes on."""
    return CosignRequest(old, hashes(rows, consistency_spans(old, new)), signed(rows, new))


def history(*things: EntryProof | CosignRequest, seen: SignedCheckpoint | None = None) -> History:
    """What is known of the log by these."""
    heap = Documents(
        proofs=tuple(t for t in things if isinstance(t, EntryProof)),
        consistencies=tuple(t for t in things if isinstance(t, CosignRequest)),
    )
    (found,) = histories_of(heap, [trust()], remembered=() if seen is None else (seen,))
    return found


def sizes(found: History) -> list[list[int]]:
    """The sizes of the heads that are shown to be of one history each."""
    return [[head.checkpoint.size for head in strand] for strand in found.strands]


def conflict(found: History) -> tuple[int, int] | None:
    """The sizes of the two heads that contradict each other."""
    if found.conflict is None:
        return None
    one, other = found.conflict
    return one.checkpoint.size, other.checkpoint.size


def test_two_heads_of_one_size_are_two_histories() -> None:
    """Nothing more is needed, and both are told with their roots."""
    found = history(included(HONEST, 3, 20), included(FORKED, 3, 20))
    assert (20, 20) == conflict(found)
    ledger = Ledger()
    judge_history(ledger, found)
    (verdict,) = ledger.done()
    assert ("log.history", "fail") == (verdict.check, verdict.outcome)
    for rows in (HONEST, FORKED):
        assert head(rows[:20]).root.hex() in verdict.reason


def test_two_entries_in_one_place_are_two_histories() -> None:
    """Proofs of different entries at one index, under heads of any two sizes."""
    assert (17, 33) == conflict(history(included(HONEST, 12, 33), included(FORKED, 12, 17)))
    # What these two show of the rows does not meet.
    assert None is conflict(history(included(HONEST, 3, 33), included(FORKED, 4, 12)))


def test_a_subtree_that_two_trees_have_differently_is_two_histories() -> None:
    """No entry is shown twice: a sibling on one way is another one's grandparent."""
    assert (24, 33) == conflict(history(included(HONEST, 20, 24), included(FORKED, 8, 33)))


def test_a_proof_that_leads_from_another_head_is_two_histories() -> None:
    """A fork's own consistency proof says which head it begins with, and the log signed another."""
    found = history(included(HONEST, 0, 13), link(FORKED, 13, 30))
    assert (13, 30) == conflict(found)


def test_what_was_seen_before_counts() -> None:
    """A remembered head that a case contradicts is half of the evidence."""
    assert (13, 30) == conflict(history(link(FORKED, 13, 30), seen=signed(HONEST, 13)))


def test_heads_are_tied_by_proofs_alone() -> None:
    """Two of one log are apart until a proof ties them, whatever lies between."""
    alone = (included(HONEST, 1, 10), included(HONEST, 2, 20), included(HONEST, 3, 30))
    assert [[10], [20], [30]] == sizes(history(*alone))
    assert [[10, 20], [30]] == sizes(history(*alone, link(HONEST, 10, 20)))
    assert [[10, 20, 30, 40]] == sizes(
        history(*alone, link(HONEST, 10, 40), link(HONEST, 20, 40), link(HONEST, 30, 40))
    )


def test_a_common_beginning_ties_nothing() -> None:
    """Two that go on from a third may be forks of it; the empty log is the beginning of all."""
    for first in (0, 8):
        honest, forked = link(HONEST, first, 20), link(FORKED, first, 26)
        begun = included(HONEST, 1, first) if first else link(HONEST, 0, 0)
        found = history(begun, honest, forked)
        assert [[first, 20], [first, 26]] == sizes(found)


def test_a_proof_that_is_none_ties_nothing() -> None:
    """An honest proof of other sizes, an invented one, or one under a stranger's head."""
    alone = (included(HONEST, 1, 10), included(HONEST, 2, 20))
    good = link(HONEST, 10, 20)
    for proof in ((), (bytes(32),), good.proof[:-1], link(HONEST, 11, 20).proof):
        wrong = CosignRequest(10, proof, good.signed)
        assert [[10], [20]] == sizes(history(*alone, wrong))
    stranger = sign_checkpoint(head(HONEST[:20]), signer("log.example.com/other"))
    assert [[10], [20]] == sizes(history(*alone, CosignRequest(10, good.proof, stranger)))


def test_witnesses_of_the_newest_policy_tie_heads() -> None:
    """A quorum that cosigned both; not another one, nor one of a policy that was replaced."""
    w1, w2, w3 = (witness_signer(f"w{n}.example.com") for n in (1, 2, 3))

    def of(k: int, *witnesses: WitnessSigner) -> LogPolicy:
        names = [f"w{n}" for n, _ in enumerate(witnesses)]
        lines = [f"log {signer().note_key.vkey}"]
        lines += [f"witness {n} {w.note_key.vkey}" for n, w in zip(names, witnesses, strict=True)]
        lines += [f"group g {k} {' '.join(names)}", "quorum g", ""]
        return decode_log_policy("\n".join(lines).encode())

    def cosigned(size: int, *witnesses: WitnessSigner) -> EntryProof:
        bare = included(HONEST, 1, size)
        lines = [cosign_checkpoint(bare.proof.signed.checkpoint, w, seconds=9) for w in witnesses]
        proof = replace(bare.proof, signed=bare.proof.signed.with_signatures(*lines))
        return replace(bare, proof=proof)

    def strands(policies: list[LogPolicy], *things: EntryProof) -> list[list[int]]:
        (found,) = histories_of(Documents(proofs=things), policies)
        return sizes(found)

    both = (cosigned(10, w1, w2), cosigned(20, w1, w2), cosigned(30, w2, w3))
    assert [[10, 20, 30]] == strands([of(1, w1, w2, w3)], *both)
    assert [[10, 20], [30]] == strands([of(2, w1, w2, w3)], *both)
    assert [[10], [20], [30]] == strands([of(1, w1, w2), of(1, w3)], *both)
    assert [[10], [20], [30]] == strands([of(1, w1, w2), trust()], *both)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_an_honest_log_never_contradicts_itself(data: st.DataObject) -> None:
    """Any proofs of one tree, together: no conflict."""
    pairs = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)
    things: list[EntryProof | CosignRequest] = []
    for low, high in data.draw(st.lists(pairs, min_size=1, max_size=5)):
        things.append(link(HONEST, low, high))
        if low < high:
            things.append(included(HONEST, low, high))
    assert None is history(*things).conflict


def crossed(proof: list[bytes], under: list[bytes], old: int, new: int) -> CosignRequest:
    """A proof made from one history, under another one's head."""
    return CosignRequest(old, hashes(proof, consistency_spans(old, new)), signed(under, new))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_no_proofs_tie_two_histories(data: st.DataObject) -> None:
    """Whatever proofs somebody makes of two histories and mixes, each strand is of one."""
    rows = st.sampled_from([HONEST, FORKED])
    pairs = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)
    things: list[EntryProof | CosignRequest] = []
    for low, high in data.draw(st.lists(pairs, min_size=2, max_size=8)):
        mine, under = data.draw(rows), data.draw(rows)
        things.append(crossed(mine, under, low, high))
        things.append(link(under, high, high))
        if low < high:
            things.append(included(mine, low, high))
    found = history(*things)
    for strand in found.strands:
        end = strand[-1].checkpoint
        whole = HONEST if root(map(leaf_hash, HONEST[: end.size])) == end.root else FORKED
        for each in strand:
            assert head(whole[: each.checkpoint.size]) == each.checkpoint
    seen = {each.checkpoint for each in found.heads}
    one = any(all(head(rows[: c.size]) == c for c in seen) for rows in (HONEST, FORKED))
    assert one or len(found.strands) > 1 or found.conflict


@pytest.mark.parametrize("new", range(34))
def test_what_proofs_show_of_small_trees(new: int) -> None:
    """Each subtree is what its rows hash to; a consistency proof tells the tree it begins with."""
    rows, top = HONEST[:new], root(map(leaf_hash, HONEST[:new]))
    for index in range(new):
        way = hashes(rows, inclusion_spans(index, new))
        leaf = leaf_hash(rows[index])
        for span, known in inclusion_subtrees(leaf, index, size=new, proof=way, head=top):
            assert root(map(leaf_hash, rows[span.start : span.end])) == known
    for old in range(new + 1):
        begun = root(map(leaf_hash, rows[:old]))
        way = hashes(rows, consistency_spans(old, new))
        found, shown = consistency_subtrees(old, new, proof=way, head=top, old_head=begun)
        assert begun == found
        for span, known in shown:
            assert root(map(leaf_hash, rows[span.start : span.end])) == known
        for wrong in ([*way, bytes(32)], way[:-1] if way else [bytes(32)]):
            with pytest.raises(Refused):
                consistency_subtrees(old, new, proof=wrong, head=top, old_head=begun)
