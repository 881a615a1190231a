"""Quorum trees as people write them: ``all(2 of (sec1, sec2, sec3), 1 of (lead1, lead2))``.

Format: policy.md, "Quorum trees in words".  ``parse_quorum(format_quorum(tree)) == tree`` for every
tree; text has other spellings (white space, ``2 of (a, b)`` for ``all(a, b)``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from custody.crypto.quorum import MAX_CHILDREN, MAX_DEPTH, Node, Person, Threshold
from custody.errors import Malformed

#: Longest text read, in characters.
MAX_TEXT_CHARS = 65_536

_TOKEN = re.compile(r"\s*([a-z0-9][a-z0-9._-]{0,62}|[(),])")
_ALL = "all"


def format_quorum(tree: Node) -> str:
    """Write a tree on one line."""
    if isinstance(tree, Person):
        return tree.principal
    children = ", ".join(map(format_quorum, tree.of))
    return f"all({children})" if tree.k == len(tree.of) else f"{tree.k} of ({children})"


def parse_quorum(text: str) -> Node:
    """Read a tree; raise `Malformed` saying where it stops making sense."""
    if len(text) > MAX_TEXT_CHARS:
        raise Malformed(f"quorum: longer than {MAX_TEXT_CHARS} characters")
    tokens = _Tokens(text)
    tree = _node(tokens, depth=0)
    if tokens.peek():
        raise tokens.fault("more after the end")
    return tree


class _Tokens:
    """What is left of the text, one token at a time; "" at its end."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokenize(text))
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def expect(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self.fault(f"expected {wanted!r}")
        self.take()

    def fault(self, reason: str) -> Malformed:
        seen = " ".join(self._tokens[max(0, self._at - 3) : self._at + 1])
        return Malformed(f"quorum: {reason} at {seen!r}")


def _tokenize(text: str) -> Iterator[str]:
    at = 0
    stripped = text.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise Malformed(f"quorum: cannot read {stripped[at : at + 20]!r}")
        yield match[1]
        at = match.end()


def _node(tokens: _Tokens, *, depth: int) -> Node:
    word = tokens.take()
    if not word or word in "(),":
        raise tokens.fault("expected a name, all(…) or K of (…)")
    # "all" and numbers are names too, unless what follows makes them a group.
    if word == _ALL and tokens.peek() == "(":
        children = _children(tokens, depth=depth)
        return Threshold(k=len(children), of=children)
    if word.isdigit() and tokens.peek() == "of":
        tokens.take()
        children = _children(tokens, depth=depth)
        if not 1 <= int(word) <= len(children):
            raise tokens.fault(f"{word} of {len(children)}")
        return Threshold(k=int(word), of=children)
    return Person(principal=word)


def _children(tokens: _Tokens, *, depth: int) -> tuple[Node, ...]:
    if depth >= MAX_DEPTH:
        raise tokens.fault(f"deeper than {MAX_DEPTH}")
    tokens.expect("(")
    children = [_node(tokens, depth=depth + 1)]
    while tokens.peek() == ",":
        tokens.take()
        children.append(_node(tokens, depth=depth + 1))
    tokens.expect(")")
    if len(children) > MAX_CHILDREN:
        raise tokens.fault(f"more than {MAX_CHILDREN} children")
    return tuple(children)
