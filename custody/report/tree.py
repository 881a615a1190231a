"""The quorum tree as a picture: who filled which leaf, who denied, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from custody.crypto.quorum import Node, Threshold, leaves, satisfied
from custody.ops.account import first_fault
from custody.ops.audit import AuditedRelease
from custody.report.words import clipped, cut

State = Literal["yes", "bad-share", "no", "void", "none", "met", "short"]
_STEP, _ROW, _BOX = 190, 52, 40
_LEAF_WIDTH, _NODE_WIDTH = 250, 140
_NAME_CHARS, _WORDS_CHARS = 26, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What one officer did about a request."""

    state: State
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One node in the picture, and where its parent's line comes from."""

    x: int
    y: int
    width: int
    height: int
    state: State
    title: str
    words: str
    full: str
    parent_x: int
    parent_y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePicture:
    """A tree; lengths are CSS pixels."""

    heading: str
    boxes: tuple[Box, ...]
    width: int
    height: int


def draw_trees(release: AuditedRelease) -> tuple[TreePicture, ...]:
    """Draw the tree in force, and the one the bundle was sealed by where that is another."""
    policy, sealed_for = release.exhibits.policy, release.exhibits.sealed_for
    if policy is None or release.tally is None:
        return ()
    found = _leaf_states(release)
    if sealed_for is None or sealed_for.quorum == policy.quorum:
        return (_draw(policy.quorum, f"The quorum of policy version {policy.version}", found),)
    return (
        _draw(policy.quorum, f"In force: the quorum of policy version {policy.version}", found),
        _draw(
            sealed_for.quorum,
            f"Sealed by: the quorum of policy version {sealed_for.version}, whose shares open it",
            found,
        ),
    )


def _leaf_states(release: AuditedRelease) -> Mapping[str, Leaf]:
    tally = release.tally
    if tally is None:
        return {}
    bad = {share.approval for r in release.exhibits.receipts for share in r.predicate.bad_shares}
    found: dict[str, Leaf] = {}
    for over in tally.passed_over:
        reason = first_fault(over.verdicts, "counted already")
        found[over.officer] = Leaf(state="void", words=f"not counted: {reason}")
    for denial in tally.denials:
        if denial.counts:
            said = denial.statement.predicate
            found[denial.officer] = Leaf(
                state="no", words=f"denied {said.denied_at:%d %b %H:%M:%S}"
            )
    for approval in tally.counted:
        when = f"approved {approval.statement.predicate.approved_at:%d %b %H:%M:%S}"
        spoilt = approval.statement.digest in bad
        found[approval.officer] = (
            Leaf(state="bad-share", words=f"{when}, share bad")
            if spoilt
            else Leaf(state="yes", words=when)
        )
    return found


def _draw(tree: Node, heading: str, found: Mapping[str, Leaf]) -> TreePicture:
    boxes = tuple(_Pen(found).boxes(tree))
    return TreePicture(
        heading=heading,
        boxes=boxes,
        width=max(box.x + box.width for box in boxes) + 2,
        height=max(box.y + box.height for box in boxes) + 4,
    )


class _Pen:
    """Lays a tree out from left to right, a row for each leaf."""

    def __init__(self, found: Mapping[str, Leaf]) -> None:
        self._found = found
        self._have = [who for who, leaf in found.items() if leaf.state in ("yes", "bad-share")]
        self._rows = 0

    def boxes(self, tree: Node) -> Iterator[Box]:
        below, _ = self._lay(tree, 0)
        yield from below

    def _lay(self, node: Node, depth: int) -> tuple[list[Box], int]:
        """Return the boxes of a node, its own last, and the height of its middle."""
        if not isinstance(node, Threshold):
            middle = self._rows * _ROW + _BOX // 2 + 2
            self._rows += 1
            leaf = self._found.get(node.principal, Leaf(state="none", words="no answer here"))
            return [_leaf_box(node.principal, leaf, depth, middle)], middle
        laid = [self._lay(child, depth + 1) for child in node.of]
        middle = (laid[0][1] + laid[-1][1]) // 2
        filled = sum(_met(child, self._have) for child in node.of)
        met = filled >= node.k
        x = depth * _STEP
        boxes = [
            _with_parent(box, x + _NODE_WIDTH, middle) if box is below[-1] else box
            for below, _ in laid
            for box in below
        ]
        own = Box(
            x=x + 1,
            y=middle - _BOX // 2,
            width=_NODE_WIDTH,
            height=_BOX,
            state="met" if met else "short",
            title=f"{node.k} of {len(node.of)}",
            words=f"{filled} of {node.k} there" if not met else "satisfied",
            full="",
            parent_x=0,
            parent_y=0,
        )
        return [*boxes, own], middle


def _met(node: Node, have: Sequence[str]) -> bool:
    return satisfied(node, [leaf.path for leaf in leaves(node) if leaf.principal in have])


def _leaf_box(name: str, leaf: Leaf, depth: int, middle: int) -> Box:
    return Box(
        x=depth * _STEP + 1,
        y=middle - _BOX // 2,
        width=_LEAF_WIDTH,
        height=_BOX,
        state=leaf.state,
        title=clipped(name, _NAME_CHARS),
        words=cut(leaf.words, _WORDS_CHARS),
        full=f"{name}: {leaf.words}",
        parent_x=0,
        parent_y=0,
    )


def _with_parent(box: Box, x: int, y: int) -> Box:
    return replace(box, parent_x=x, parent_y=y)
