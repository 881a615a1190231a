"""Quorum trees: who must agree, as arithmetic.  Protocol: docs/protocol.md section 3.6.

A tree is k-of-n nodes over persons, e.g. ``all(2 of {sec1, sec2, sec3}, 1 of {lead1, lead2})``.
A leaf is named by its path: child indexes from 0, joined by "/"; the root's path is "".
"""

from __future__ import annotations

import hmac
import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from custody.crypto import shamir
from custody.crypto.bind import bind
from custody.crypto.secret import Octets, Random, wipe
from custody.encoding import Digest, Name, Record, encode
from custody.errors import Incomplete, Refused

MAX_CHILDREN = 32
MAX_DEPTH = 8
MAX_MINIMAL_SETS = 512


class Person(Record, frozen=True, kw_only=True, tag_field="node", tag="person"):
    """A leaf: one principal."""

    principal: Name


class Threshold(Record, frozen=True, kw_only=True, tag_field="node", tag="threshold"):
    """``k`` of the children ``of``.  All of them is k = n, any of them k = 1."""

    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHILDREN)]
    of: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1, max_length=MAX_CHILDREN)]


Node = Person | Threshold


class Leaf(msgspec.Struct, frozen=True):
    """A person's place; ``x`` is its position under its parent, from 1, and its share's x."""

    path: str
    principal: str
    x: int


@dataclass(frozen=True, slots=True)
class LeafShare:
    """The share of one leaf.  Its value never shows in a repr."""

    path: str
    x: int
    value: bytearray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """At ``path``, ``needed`` more branches must be satisfied; ``among`` can help."""

    path: str
    needed: int
    among: tuple[str, ...]


def tree_digest(tree: Node) -> Digest:
    """Return the hex digest of a tree: ``bind("tree", canonical JSON)``."""
    return bind("tree", encode(tree)).hex()


def leaves(tree: Node) -> tuple[Leaf, ...]:
    """List the leaves in order."""
    _check_shape(tree)
    return tuple(_leaves(tree, "", 1))


def satisfied(tree: Node, have: Collection[str]) -> bool:
    """Say whether the leaf paths in ``have`` satisfy the tree.  Unknown paths count for nothing."""
    _check_shape(tree)
    return _satisfied(tree, "", frozenset(have))


def missing(tree: Node, have: Collection[str]) -> tuple[Shortfall, ...]:
    """Say what the leaf paths in ``have`` lack; empty if they satisfy the tree.

    A node whose unsatisfied branches are all needed is described branch by branch; one where there
    is a choice is described once, by everybody who can still help.
    """
    _check_shape(tree)
    return tuple(_missing(tree, "", frozenset(have)))


def lint(tree: Node) -> tuple[str, ...]:
    """List what is wrong with a tree, in words; empty if nothing is.

    A broken shape (k of fewer than k, no or too many children, too deep) is listed alone, because
    the rest has no meaning for it.
    """
    broken = tuple(_shape_faults(tree))
    if broken:
        return broken
    reasons = []
    people = Counter(leaf.principal for leaf in _leaves(tree, "", 1))
    # Two leaves of one person would let him stand for two.
    reasons += [f"{name} holds {n} leaves" for name, n in sorted(people.items()) if n > 1]
    reasons += [
        f"{_at(path)} has one child" for path, node in _thresholds(tree) if len(node.of) == 1
    ]
    if _fewest(tree) == 1:
        reasons.append("a single officer satisfies the tree")
    if _count(tree, MAX_MINIMAL_SETS) > MAX_MINIMAL_SETS:
        reasons.append(f"there are more than {MAX_MINIMAL_SETS} minimal sets")
    return tuple(reasons)


def minimal_sets(tree: Node, limit: int = MAX_MINIMAL_SETS) -> tuple[frozenset[str], ...]:
    """List the sets of leaf paths that satisfy the tree and contain no smaller one that does.

    Ordered by child indexes.  More than ``limit`` are refused before any is listed.
    """
    _check_shape(tree)
    _check_count(tree, limit)
    return tuple(_minimal_sets(tree, ""))


def maximal_unsatisfying(tree: Node, limit: int = MAX_MINIMAL_SETS) -> tuple[frozenset[str], ...]:
    """List the sets of leaf paths that do not satisfy the tree but would with any leaf more.

    More than ``limit`` are refused before any is listed.
    """
    _check_shape(tree)
    # What such a set leaves out is a minimal set of the dual tree: k of n fails exactly when
    # n-k+1 branches fail.
    dual = _dual(tree)
    _check_count(dual, limit)
    everybody = frozenset(leaf.path for leaf in _leaves(tree, "", 1))
    return tuple(everybody - absent for absent in _minimal_sets(dual, ""))


def split(tree: Node, secret: Octets, rng: Random = os.urandom) -> tuple[LeafShare, ...]:
    """Share ``secret`` down the tree; one share per leaf, in order.

    A k-of-n node with k ≥ 2 gives child j the polynomial at x = j; a 1-of-n node hands its value
    to every child.  The caller wipes the values.
    """
    _check_shape(tree)
    return tuple(_split(tree, "", 1, bytearray(secret), rng))


def combine(tree: Node, shares: Mapping[str, Octets]) -> bytearray:
    """Rebuild the secret from shares by leaf path.

    Raises `Incomplete` if they do not satisfy the tree, `Refused` for a path that is no leaf.
    Whether a share is the right one is not visible here: compare its commitment first.
    """
    _check_shape(tree)
    known = {leaf.path for leaf in _leaves(tree, "", 1)}
    if not known.issuperset(shares):
        raise Refused("a share belongs to no leaf of the tree", check="quorum.leaf")
    secret = _combine(tree, "", shares)
    if secret is None:
        raise Incomplete(
            "the quorum is not complete",
            missing=[
                f"{gap.needed} of {', '.join(gap.among)}" for gap in missing(tree, tuple(shares))
            ],
        )
    return secret


def check_shares(tree: Node, shares: Sequence[LeafShare], secret: Octets) -> None:
    """Rebuild ``secret`` from every minimal set; refuse if one gives anything else.

    For the publisher, before he wipes the secret: afterwards nobody could mend it.
    """
    values = {share.path: share.value for share in shares}
    for minimal in minimal_sets(tree):
        if not minimal <= values.keys():
            raise Refused("a leaf has no share", check="quorum.shares")
        rebuilt = combine(tree, {path: values[path] for path in minimal})
        same = hmac.compare_digest(rebuilt, secret)
        wipe(rebuilt)
        if not same:
            raise Refused("the shares do not give back the secret", check="quorum.shares")


def _child(path: str, index: int) -> str:
    return f"{path}/{index}" if path else str(index)


def _at(path: str) -> str:
    return f"node {path}" if path else "the root"


def _shape_faults(tree: Node) -> Iterator[str]:
    # An explicit stack: what a stranger wrote must not exhaust the interpreter's.
    pending: list[tuple[str, Node, int]] = [("", tree, 0)]
    while pending:
        path, node, depth = pending.pop()
        if isinstance(node, Person):
            continue
        if depth >= MAX_DEPTH:
            yield f"the tree is deeper than {MAX_DEPTH}"
            return
        if not 1 <= len(node.of) <= MAX_CHILDREN:
            yield f"{_at(path)} has {len(node.of)} children, not 1 to {MAX_CHILDREN}"
        elif not 1 <= node.k <= len(node.of):
            yield f"{_at(path)} asks for {node.k} of {len(node.of)}"
        pending += [(_child(path, index), child, depth + 1) for index, child in enumerate(node.of)]


def _check_shape(tree: Node) -> None:
    for fault in _shape_faults(tree):
        raise Refused(fault, check="policy.quorum")


def _check_count(tree: Node, limit: int) -> None:
    if _count(tree, limit) > limit:
        raise Refused(f"there are more than {limit} minimal sets", check="policy.quorum")


def _leaves(node: Node, path: str, x: int) -> Iterator[Leaf]:
    if isinstance(node, Person):
        yield Leaf(path, node.principal, x)
        return
    for index, child in enumerate(node.of):
        yield from _leaves(child, _child(path, index), index + 1)


def _thresholds(node: Node, path: str = "") -> Iterator[tuple[str, Threshold]]:
    if isinstance(node, Threshold):
        yield path, node
        for index, child in enumerate(node.of):
            yield from _thresholds(child, _child(path, index))


def _satisfied(node: Node, path: str, have: frozenset[str]) -> bool:
    if isinstance(node, Person):
        return path in have
    met = sum(_satisfied(child, _child(path, i), have) for i, child in enumerate(node.of))
    return met >= node.k


def _missing(node: Node, path: str, have: frozenset[str]) -> Iterator[Shortfall]:
    if isinstance(node, Person):
        if path not in have:
            yield Shortfall(path, 1, (node.principal,))
        return
    open_branches = [
        (_child(path, index), child)
        for index, child in enumerate(node.of)
        if not _satisfied(child, _child(path, index), have)
    ]
    needed = node.k - (len(node.of) - len(open_branches))
    if needed <= 0:
        return
    persons = tuple(child.principal for _, child in open_branches if isinstance(child, Person))
    if needed == len(open_branches):
        if persons:
            yield Shortfall(path, len(persons), persons)
        for at, child in open_branches:
            if isinstance(child, Threshold):
                yield from _missing(child, at, have)
        return
    among = [
        leaf.principal
        for at, child in open_branches
        for leaf in _leaves(child, at, 1)
        if leaf.path not in have
    ]
    yield Shortfall(path, needed, tuple(among))


def _fewest(node: Node) -> int:
    """Count the leaves of the smallest minimal set."""
    if isinstance(node, Person):
        return 1
    return sum(sorted(map(_fewest, node.of))[: node.k])


def _count(node: Node, limit: int) -> int:
    """Count the minimal sets, or return limit + 1 if there are more.

    The leaves are distinct, so the sets of different choices are too, and a node has as many as
    the k-th elementary symmetric polynomial of its children's counts.
    """
    if isinstance(node, Person):
        return 1
    # ways[j]: choices of j branches so far.  Capping is sound: nothing is ever subtracted, and no
    # factor is 0.
    ways = [1] + [0] * node.k
    for child in node.of:
        count = _count(child, limit)
        for chosen in range(node.k, 0, -1):
            ways[chosen] = min(limit + 1, ways[chosen] + ways[chosen - 1] * count)
    return ways[node.k]


def _minimal_sets(node: Node, path: str) -> Iterator[frozenset[str]]:
    if isinstance(node, Person):
        yield frozenset((path,))
        return
    branches = [
        tuple(_minimal_sets(child, _child(path, index))) for index, child in enumerate(node.of)
    ]
    for chosen in itertools.combinations(branches, node.k):
        for sets in itertools.product(*chosen):
            yield frozenset().union(*sets)


def _dual(node: Node) -> Node:
    if isinstance(node, Person):
        return node
    return Threshold(k=len(node.of) - node.k + 1, of=tuple(map(_dual, node.of)))


def _split(node: Node, path: str, x: int, value: bytearray, rng: Random) -> Iterator[LeafShare]:
    """Hand ``value`` down.  It belongs to the callee, who passes it on or wipes it."""
    if isinstance(node, Person):
        yield LeafShare(path, x, value)
        return
    if node.k == 1:
        values = tuple(bytearray(value) for _ in node.of)
    else:
        values = shamir.split(value, node.k, len(node.of), rng)
    wipe(value)
    for index, (child, below) in enumerate(zip(node.of, values, strict=True)):
        yield from _split(child, _child(path, index), index + 1, below, rng)


def _combine(node: Node, path: str, shares: Mapping[str, Octets]) -> bytearray | None:
    """Return the node's value, from its first k satisfied branches, or None if there are fewer."""
    if isinstance(node, Person):
        return bytearray(shares[path]) if path in shares else None
    points: list[tuple[int, bytearray]] = []
    for index, child in enumerate(node.of):
        value = _combine(child, _child(path, index), shares)
        if value is not None:
            points.append((index + 1, value))
        if len(points) == node.k:
            break
    try:
        if len(points) < node.k:
            return None
        return bytearray(points[0][1]) if node.k == 1 else shamir.combine(points)
    finally:
        wipe(*(value for _, value in points))
