from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto import tpmpolicy
from custody.crypto.quorum import (
    Person,
    Threshold,
    leaves,
    maximal_unsatisfying,
    minimal_sets,
)
from custody.crypto.signature import public_bytes
from custody.crypto.tpmpolicy import Or, Signed, host_policy, key_names, quorum_policy, steps
from custody.errors import Incomplete, Malformed, Refused
from tests.unit.crypto.policies import HEADERS, Case, Session, Tree, case, officers_of
from tests.unit.crypto.vectors import Vector, each, read

TERMS = bytes(range(32))
VECTORS = each("tpmpolicy/policies.txt", *HEADERS)


def a_case() -> Case:
    """Return the nested tree's vector."""
    return case(read("tpmpolicy/policies.txt", *HEADERS)[4])


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Tree:
    """Draw a tree; four children a node and three levels can make thousands of minimal sets."""
    if depth == 0 or draw(st.booleans()):
        return Person(principal="p")
    children = draw(st.lists(trees(depth - 1), min_size=1, max_size=4))
    return Threshold(k=draw(st.integers(1, len(children))), of=tuple(children))


@VECTORS
def test_policies(vector: Vector) -> None:
    """The calculator gives every vector's quorum digest and authPolicy."""
    given_case = case(vector)
    officers = officers_of(given_case.tree)
    assert given_case.quorum == quorum_policy(
        given_case.tree, key_names(officers), ref=given_case.terms
    )
    assert given_case.policy == host_policy(
        given_case.tree, officers, terms=given_case.terms, conditions=given_case.conditions
    )


@VECTORS
def test_every_minimal_set_has_steps(vector: Vector) -> None:
    """For each minimal set there are steps that sign with exactly it and end at the quorum."""
    tree, terms = case(vector).tree, case(vector).terms
    officers = officers_of(tree)
    for chosen in minimal_sets(tree):
        session = Session(officers, terms)
        for step in steps(tree, chosen, names=key_names(officers), ref=terms):
            session.run(step)
        assert case(vector).quorum == session.digest
        assert sorted(chosen) == sorted(session.signed)


@VECTORS
def test_no_unsatisfying_set_has_steps(vector: Vector) -> None:
    """A set one leaf short has no steps, and the error names people who could still sign."""
    tree = case(vector).tree
    officers = officers_of(tree)
    people = {leaf.principal for leaf in leaves(tree)}
    for short in maximal_unsatisfying(tree)[:50]:
        with pytest.raises(Incomplete) as incomplete:
            steps(tree, short, names=key_names(officers), ref=TERMS)
        assert incomplete.value.missing
        assert people.issuperset(incomplete.value.missing)


def affordable(tree: Tree) -> bool:
    """Tell whether a policy may have this tree; the others have a test of their own."""
    try:
        minimal_sets(tree)
    except Refused:
        return False
    return True


@given(trees().filter(affordable))
def test_steps_reach_the_digest_of_any_tree(tree: Tree) -> None:
    """Whatever the tree, running its steps in a session ends at the calculator's digest."""
    officers = officers_of(tree)
    session = Session(officers, TERMS)
    everybody = [leaf.path for leaf in leaves(tree)]
    for step in steps(tree, everybody, names=key_names(officers), ref=TERMS):
        session.run(step)
    assert quorum_policy(tree, key_names(officers), ref=TERMS) == session.digest


def test_steps_choose_the_first_children() -> None:
    """With more leaves than needed, each node takes its first satisfied children."""
    tree = a_case().tree
    names = key_names(officers_of(tree))
    chosen = steps(tree, ["0/0", "0/1", "0/2", "1/0", "1/1"], names=names, ref=TERMS)
    assert ["0/0", "0/1", "1/0"] == [step.leaf for step in chosen if isinstance(step, Signed)]


def test_steps_ignore_unknown_paths() -> None:
    """A signature for a leaf the tree does not have changes nothing."""
    tree = a_case().tree
    names = key_names(officers_of(tree))
    plain = steps(tree, ["0/0", "0/2", "1/1"], names=names, ref=TERMS)
    assert plain == steps(tree, ["0/0", "0/2", "1/1", "7/7"], names=names, ref=TERMS)


def test_or_is_nested_past_eight() -> None:
    """No PolicyOR has more than eight branches or fewer than two, and ten make two levels."""
    tree = Threshold(k=2, of=tuple(Person(principal=f"p{n}") for n in range(5)))
    names = key_names(officers_of(tree))
    for chosen in minimal_sets(tree):
        ors = [s for s in steps(tree, chosen, names=names, ref=TERMS) if isinstance(s, Or)]
        assert [True, True] == [2 <= len(step.branches) <= 8 for step in ors]


def test_a_left_over_branch_passes_up_unchanged() -> None:
    """The ninth of nine branches meets one PolicyOR only, the other eight two."""
    tree = Threshold(k=1, of=tuple(Person(principal=f"p{n}") for n in range(9)))
    names = key_names(officers_of(tree))
    counts = [
        sum(isinstance(step, Or) for step in steps(tree, [str(n)], names=names, ref=TERMS))
        for n in range(9)
    ]
    assert [2] * 8 + [1] == counts


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": (0, 2, 4)},
        {"pcr_digest": bytes(32)},
        {"nv_name": b"\x00\x0b" + bytes(32)},
        {"counter": 6},
        {"deadline_ms": 1},
        {"reset_count": 8},
        {"restart_count": 99},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_condition_is_in_the_policy(change: dict[str, object]) -> None:
    """Changing any one condition changes the authPolicy."""
    known = a_case()
    changed = replace(known.conditions, **change)  # type: ignore[arg-type]
    assert known.policy != host_policy(
        known.tree, officers_of(known.tree), terms=known.terms, conditions=changed
    )


def test_reset_and_restart_counts_do_not_trade() -> None:
    """Counts of 1 and 0 make another policy than 0 and 1."""
    known = a_case()
    one, other = (
        host_policy(
            known.tree,
            officers_of(known.tree),
            terms=known.terms,
            conditions=replace(known.conditions, reset_count=a, restart_count=b),
        )
        for a, b in ((1, 0), (0, 1))
    )
    assert one != other


def test_terms_and_officers_are_in_the_policy() -> None:
    """Other terms, or one officer's key exchanged for another's, make another policy."""
    known = a_case()
    officers = officers_of(known.tree)
    swapped = officers | {"0/0": officers["0/1"], "0/1": officers["0/0"]}
    for terms, people in ((TERMS, officers), (known.terms, swapped)):
        assert known.policy != host_policy(
            known.tree, people, terms=terms, conditions=known.conditions
        )


def test_an_impossible_tree_is_refused() -> None:
    """A tree that asks for more children than it has makes no policy."""
    tree = Threshold(k=3, of=(Person(principal="a"), Person(principal="b")))
    with pytest.raises(Refused) as refused:
        quorum_policy(tree, {}, ref=TERMS)
    assert "policy.quorum" == refused.value.check


def test_a_tree_too_costly_is_refused_at_once() -> None:
    """C(32, 16) branches are refused, not computed."""
    tree = Threshold(k=16, of=tuple(Person(principal=f"p{n}") for n in range(32)))
    with pytest.raises(Refused) as refused:
        quorum_policy(tree, {}, ref=TERMS)
    assert "policy.quorum" == refused.value.check
    with pytest.raises(Refused):
        steps(tree, [str(n) for n in range(32)], names={}, ref=TERMS)


def test_an_officer_needs_a_p256_key() -> None:
    """PolicySigned keys are P-256: another curve is refused, other bytes are malformed."""
    spki = public_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(Refused) as refused:
        tpmpolicy.officer_key_public(spki)
    assert "policy.officer-key" == refused.value.check
    with pytest.raises(Malformed):
        tpmpolicy.officer_key_name(spki[:-1])


@pytest.mark.parametrize("count", [0, 1, 9])
def test_policy_or_takes_two_to_eight(count: int) -> None:
    """PolicyOR over fewer than two or more than eight branches is a mistake of the caller."""
    with pytest.raises(ValueError, match="two to eight"):
        tpmpolicy.policy_or([bytes(32)] * count)


@pytest.mark.parametrize("pcr", [-1, 24])
def test_a_register_has_a_number(pcr: int) -> None:
    """There are registers 0 to 23."""
    with pytest.raises(ValueError, match="0 to 23"):
        tpmpolicy.pcr_selection([pcr])
