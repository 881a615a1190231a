from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from custody.crypto import quorum
from custody.crypto.quorum import Leaf, LeafShare, Node, Person, Shortfall, Threshold
from custody.crypto.secret import wipe
from custody.encoding import decode, encode
from custody.errors import Incomplete, Malformed, Refused
from tests.unit.crypto.test_shamir import replay
from tests.unit.crypto.vectors import Vector, each

SECRET = bytes(range(32))


def people(*names: str) -> tuple[Person, ...]:
    """Return a leaf for each name."""
    return tuple(Person(principal=name) for name in names)


TREE = Threshold(
    k=2,
    of=(
        Threshold(k=2, of=people("sec1", "sec2", "sec3")),
        Threshold(k=1, of=people("lead1", "lead2")),
    ),
)


def read(data: bytes) -> Node:
    """Read a tree from its JSON."""
    return decode(Node, data)  # type: ignore[arg-type]


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Node:
    """Trees of up to three levels with distinct persons (named by a counter afterwards)."""
    if depth == 0 or draw(st.booleans()):
        return Person(principal="x")
    children = tuple(draw(st.lists(trees(depth=depth - 1), min_size=1, max_size=4)))
    return Threshold(k=draw(st.integers(1, len(children))), of=children)


def subsets(paths: list[str]) -> list[frozenset[str]]:
    """List every subset."""
    return [
        frozenset(chosen)
        for size in range(len(paths) + 1)
        for chosen in itertools.combinations(paths, size)
    ]


@each("quorum/trees.txt", "tree", "digest", "minimal", "secret", "drawn", "shares")
def test_known_trees(vector: Vector) -> None:
    """Known trees have the known digest, minimal sets and, for known coefficients, shares."""
    tree = decode(Threshold, vector["tree"].encode())
    assert vector["digest"] == quorum.tree_digest(tree)
    minimal = tuple(frozenset(one.split()) for one in vector["minimal"].split("|"))
    assert minimal == quorum.minimal_sets(tree)
    secret = bytes.fromhex(vector["secret"])
    drawn = [bytes.fromhex(value) for value in vector["drawn"].split()]
    shares = quorum.split(tree, secret, replay(*drawn))
    written = [f"{share.path}:{share.x}:{share.value.hex()}" for share in shares]
    assert vector["shares"].split() == written
    quorum.check_shares(tree, shares, secret)


@each("quorum/lint.txt", "expect", "tree", "reason")
def test_lint(vector: Vector) -> None:
    """A tree is linted as its vector says."""
    tree = read(vector["tree"].encode())
    reasons = quorum.lint(tree)
    if vector["expect"] == "good":
        assert () == reasons
    else:
        assert "bad" == vector["expect"]
        assert vector["reason"] in reasons


@given(trees())
def test_trees_round_trip(tree: Node) -> None:
    """A tree reads back from its one encoding."""
    assert tree == read(encode(tree))


@pytest.mark.parametrize(
    "data",
    [
        b'{"k":0,"node":"threshold","of":[{"node":"person","principal":"a"}]}',
        b'{"k":33,"node":"threshold","of":[{"node":"person","principal":"a"}]}',
        b'{"k":1,"node":"threshold","of":[]}',
        b'{"k":1,"node":"gate","of":[{"node":"person","principal":"a"}]}',
        b'{"node":"person","principal":"A"}',
        b'{"node":"person","principal":"a","x":1}',
        b'{"node":"person", "principal":"a"}',
        b'{"k":true,"node":"threshold","of":[{"node":"person","principal":"a"}]}',
        b'{"k":1,"node":"threshold","of":[' * 100000,
        b'{"k":1,"node":"threshold","of":[' * 5000
        + b'{"node":"person","principal":"a"}'
        + b"]}" * 5000,
    ],
    ids=range(10),
)
def test_bad_encodings(data: bytes) -> None:
    """Numbers out of range, unknown nodes and fields, and bottomless nesting are malformed."""
    with pytest.raises(Malformed):
        read(data)


def test_leaves() -> None:
    """A leaf is named by its path and has its position under its parent as x."""
    want = (
        Leaf("0/0", "sec1", 1),
        Leaf("0/1", "sec2", 2),
        Leaf("0/2", "sec3", 3),
        Leaf("1/0", "lead1", 1),
        Leaf("1/1", "lead2", 2),
    )
    assert want == quorum.leaves(TREE)
    assert (Leaf("", "alone", 1),) == quorum.leaves(Person(principal="alone"))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_sets_by_exhaustion(tree: Node) -> None:
    """Minimal and maximal sets are exactly those that trying every subset of leaves finds."""
    paths = [leaf.path for leaf in quorum.leaves(tree)]
    if len(paths) > 8:
        return
    tried = {one: quorum.satisfied(tree, one) for one in subsets(paths)}
    minimal = {
        one for one, yes in tried.items() if yes and not any(tried[one - {path}] for path in one)
    }
    maximal = {
        one
        for one, yes in tried.items()
        if not yes and all(tried[one | {path}] for path in paths if path not in one)
    }
    listed = quorum.minimal_sets(tree)
    assert minimal == set(listed)
    assert len(minimal) == len(listed)
    assert maximal == set(quorum.maximal_unsatisfying(tree))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_enforcement(tree: Node) -> None:
    """Every minimal set combines to the secret; every maximal unsatisfying set is incomplete."""
    assume(quorum._count(tree, 512) <= 512 and quorum._count(quorum._dual(tree), 512) <= 512)
    minimal, maximal = quorum.minimal_sets(tree), quorum.maximal_unsatisfying(tree)
    values = {share.path: share.value for share in quorum.split(tree, SECRET)}
    assert SECRET == quorum.combine(tree, values)
    for one in minimal:
        assert SECRET == quorum.combine(tree, {path: values[path] for path in one})
    for one in maximal:
        assert not quorum.satisfied(tree, one)
        assert quorum.missing(tree, one)
        with pytest.raises(Incomplete) as caught:
            quorum.combine(tree, {path: values[path] for path in one})
        assert caught.value.missing


@pytest.mark.parametrize("k", [2, 3])
def test_without_the_count_fewer_shares_still_fail(k: int) -> None:
    """With the count taken out of the tree, k - 1 shares of a node give another value.

    The attacker's own tree asks for one share less; the arithmetic does not oblige.
    """
    tree = Threshold(k=k, of=people("a", "b", "c"))
    values = {share.path: share.value for share in quorum.split(tree, SECRET)}
    weaker = Threshold(k=k - 1, of=tree.of)
    for chosen in itertools.combinations(values, k - 1):
        assert SECRET != quorum.combine(weaker, {path: values[path] for path in chosen})


def test_shares_of_two_trees_do_not_mix() -> None:
    """Shares of two splits of one secret, one short each, do not combine to it."""
    first = {share.path: share.value for share in quorum.split(TREE, SECRET)}
    second = {share.path: share.value for share in quorum.split(TREE, SECRET)}
    mixed = {"0/0": first["0/0"], "0/1": second["0/1"], "1/0": first["1/0"]}
    assert SECRET != quorum.combine(TREE, mixed)


def test_extra_shares_do_no_harm() -> None:
    """More shares than a node needs are left unread, in leaf order."""
    values = {share.path: bytes(share.value) for share in quorum.split(TREE, SECRET)}
    values["0/2"] = b"\xff" * 32
    assert SECRET == quorum.combine(TREE, values)


def test_a_share_for_no_leaf_is_refused() -> None:
    """A path outside the tree is refused, whatever else is there."""
    values = {share.path: share.value for share in quorum.split(TREE, SECRET)}
    with pytest.raises(Refused) as caught:
        quorum.combine(TREE, {**values, "2": b"\x00" * 32})
    assert "quorum.leaf" == caught.value.check


def test_split_leaves_the_secret_alone_and_owns_its_shares() -> None:
    """Splitting wipes no buffer of the caller's, and no two leaves share one."""
    secret = bytearray(SECRET)
    shares = quorum.split(Threshold(k=1, of=people("a", "b")), secret)
    assert SECRET == secret
    shares[0].value[:] = bytes(32)
    assert SECRET == shares[1].value
    before = {share.path: bytearray(share.value) for share in shares}
    quorum.combine(Threshold(k=1, of=people("a", "b")), before)
    assert SECRET == before["1"]


def test_intermediate_values_are_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node's value, going down and coming up, is zero when the call returns."""
    wiped: list[bytearray] = []

    def record(*buffers: bytearray) -> None:
        wiped.extend(buffers)
        wipe(*buffers)

    monkeypatch.setattr(quorum, "wipe", record)
    shares = quorum.split(TREE, SECRET)
    # The root and its two groups.
    assert [bytes(32)] * 3 == [bytes(buffer) for buffer in wiped]
    assert all(any(share.value) for share in shares)
    wiped.clear()
    quorum.combine(TREE, {share.path: share.value for share in shares})
    # Two leaves and one of the groups, and then both groups.
    assert [bytes(32)] * 5 == [bytes(buffer) for buffer in wiped]
    assert all(any(share.value) for share in shares)


def test_a_share_does_not_show() -> None:
    """A share's repr names its leaf and nothing else."""
    assert "LeafShare(path='0/1', x=2)" == repr(LeafShare("0/1", 2, bytearray(b"secret")))


@pytest.mark.parametrize("fault", range(5))
def test_check_shares_finds_one_bad_share(fault: int) -> None:
    """One flipped bit in any leaf's share is found before the secret is wiped."""
    shares = quorum.split(TREE, SECRET)
    quorum.check_shares(TREE, shares, SECRET)
    shares[fault].value[7] ^= 1
    with pytest.raises(Refused) as caught:
        quorum.check_shares(TREE, shares, SECRET)
    assert "quorum.shares" == caught.value.check


def test_check_shares_wants_every_leaf() -> None:
    """A leaf without a share is refused even though others would do."""
    with pytest.raises(Refused) as caught:
        quorum.check_shares(TREE, quorum.split(TREE, SECRET)[:-1], SECRET)
    assert "quorum.shares" == caught.value.check


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ([], [("0", 2, "sec1 sec2 sec3"), ("1", 1, "lead1 lead2")]),
        (["0/1"], [("0", 1, "sec1 sec3"), ("1", 1, "lead1 lead2")]),
        (["0/0", "0/1"], [("1", 1, "lead1 lead2")]),
        (["0/0", "1/1"], [("0", 1, "sec2 sec3")]),
        (["0/0", "0/2", "1/1"], []),
        (["0/0", "0/0", "7/7", "1/1"], [("0", 1, "sec2 sec3")]),
    ],
)
def test_missing(have: list[str], want: list[tuple[str, int, str]]) -> None:
    """A shortfall says where, how many, and who can still help; strangers count for nothing."""
    gaps = tuple(Shortfall(path, needed, tuple(who.split())) for path, needed, who in want)
    assert gaps == quorum.missing(TREE, have)
    assert (not want) == quorum.satisfied(TREE, have)


def test_missing_where_there_is_a_choice() -> None:
    """Where only some branches are needed, everybody who can still help is listed once."""
    either = Threshold(
        k=1, of=(Threshold(k=2, of=people("a", "b")), Threshold(k=2, of=people("c", "d")))
    )
    assert (Shortfall("", 1, ("b", "c", "d")),) == quorum.missing(either, ["0/0"])
    beside = Threshold(k=2, of=(*people("boss"), Threshold(k=2, of=people("a", "b", "c"))))
    want = (Shortfall("", 1, ("boss",)), Shortfall("1", 1, ("b", "c")))
    assert want == quorum.missing(beside, ["1/0"])
    assert (Shortfall("", 1, ("alone",)),) == quorum.missing(Person(principal="alone"), [])
    assert () == quorum.missing(Person(principal="alone"), [""])


@pytest.mark.parametrize("list_sets", [quorum.minimal_sets, quorum.maximal_unsatisfying])
def test_a_hostile_tree_is_refused_at_once(list_sets: object) -> None:
    """A tree whose sets number thousands of digits is counted, not listed."""
    inner: Node = Threshold(k=16, of=people(*(f"p{i}" for i in range(32))))
    for _ in range(3):
        inner = Threshold(k=8, of=(inner,) * 16)
    with pytest.raises(Refused) as caught:
        list_sets(inner)  # type: ignore[operator]
    assert "policy.quorum" == caught.value.check


def test_the_limit_is_exact() -> None:
    """512 minimal sets are listed, 513 refused, by whatever shape they come about."""
    eight = Threshold(k=1, of=people(*(f"p{i}" for i in range(8))))
    full = Threshold(k=3, of=(eight, eight, eight))
    assert 512 == len(quorum.minimal_sets(full))
    assert 512 == len(quorum.minimal_sets(full, limit=512))
    with pytest.raises(Refused):
        quorum.minimal_sets(full, limit=511)
    with pytest.raises(Refused):
        quorum.minimal_sets(Threshold(k=1, of=(full, Person(principal="one"))))


@pytest.mark.parametrize(
    "tree",
    [
        Threshold(k=0, of=people("a")),
        Threshold(k=3, of=people("a", "b")),
        Threshold(k=1, of=()),
        Threshold(k=1, of=people(*(f"p{i}" for i in range(33)))),
        Threshold(k=2, of=(Threshold(k=9, of=people("a")), *people("b", "c"))),
    ],
    ids=["zero", "too many", "empty", "wide", "below"],
)
def test_broken_shapes_are_refused_everywhere(tree: Node) -> None:
    """A tree built in memory with a broken shape is listed by lint and refused by the rest."""
    assert quorum.lint(tree)
    for act in (
        lambda: quorum.leaves(tree),
        lambda: quorum.satisfied(tree, []),
        lambda: quorum.missing(tree, []),
        lambda: quorum.minimal_sets(tree),
        lambda: quorum.maximal_unsatisfying(tree),
        lambda: quorum.split(tree, SECRET),
        lambda: quorum.combine(tree, {}),
    ):
        with pytest.raises(Refused) as caught:
            act()
        assert "policy.quorum" == caught.value.check


def test_a_bottomless_tree_is_refused() -> None:
    """Fifty thousand levels, built in memory, exhaust no stack."""
    tree: Node = Person(principal="a")
    levels = []
    for _ in range(50_000):
        tree = Threshold(k=1, of=(tree,))
        levels.append(tree)
    assert ("the tree is deeper than 8",) == quorum.lint(tree)
    with pytest.raises(Refused):
        quorum.satisfied(tree, [])
    while levels:  # taken apart from outside in, since freeing it recursively is CPython's affair
        tree = levels.pop()
