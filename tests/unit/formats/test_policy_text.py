from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.quorum import Node, Person, Threshold, lint
from custody.errors import Malformed
from custody.formats.policy_draft import decode_draft
from custody.formats.policy_text import format_quorum, parse_quorum

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,8}\Z")


@st.composite
def groups(draw: st.DrawFn, children: st.SearchStrategy[Node]) -> Threshold:
    """Draw k of n children."""
    of = tuple(draw(st.lists(children, min_size=1, max_size=5)))
    return Threshold(k=draw(st.integers(1, len(of))), of=of)


TREES: st.SearchStrategy[Node] = st.recursive(
    st.builds(lambda name: Person(principal=name), NAMES), groups, max_leaves=20
)


@given(TREES)
def test_a_tree_written_and_read_is_the_same_tree(tree: Node) -> None:
    """What is shown to a signer names exactly one tree, whatever its people are called."""
    if any("deeper" in reason for reason in lint(tree)):
        return
    assert tree == parse_quorum(format_quorum(tree))


@given(st.text(alphabet="al of(),.2x\n-", max_size=60))
def test_any_text_is_a_tree_or_malformed(text: str) -> None:
    """No text makes the reader fail in a way of its own, and what it reads it can write."""
    try:
        tree = parse_quorum(text)
    except Malformed:
        return
    assert tree == parse_quorum(format_quorum(tree))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("all(2 of (a, b, c), 1 of (d, e))", "all(2 of (a, b, c), 1 of (d, e))"),
        ("  2   of(a,b)  ", "all(a, b)"),
        ("all", "all"),
        ("2 of (2, of, all)", "2 of (2, of, all)"),
    ],
)
def test_spellings(text: str, written: str) -> None:
    """White space is free, `k of n` with k = n is `all`, and `all` and numbers may be names."""
    assert written == format_quorum(parse_quorum(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a name"),
        ("all()", "expected a name"),
        ("all(a", "expected ')'"),
        ("all(a))", "more after the end"),
        ("a b", "more after the end"),
        ("3 of (a, b)", "3 of 2"),
        ("0 of (a, b)", "0 of 2"),
        ("2 of (A, b)", "cannot read"),
        ("(" * 9000, "expected a name"),
        ("all(" * 9000, "deeper than 8"),
        ("all(" + ",".join(["a"] * 33) + ")", "more than 32 children"),
        ("a" * 70_000, "longer than"),
    ],
)
def test_what_is_not_a_tree_is_malformed(text: str, reason: str) -> None:
    """Every fault says where the text stops making sense."""
    with pytest.raises(Malformed, match="quorum: ") as malformed:
        parse_quorum(text)
    assert reason in malformed.value.reason


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_draft_is_read_or_malformed(data: bytes) -> None:
    """No bytes make the draft reader fail in a way of its own."""
    with pytest.raises(Malformed):
        decode_draft(data)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("treshold = 2", "line 4: treshold is not known"),
        ("expires = 2027-10-01T00:00:00Z", "expires is to be a date"),
        ('weakest_suite = "RSA"', "weakest_suite cannot be 'RSA'"),
        ('environment = "Production!"', "environment is to be a name of 1 to 63"),
    ],
)
def test_a_draft_with_an_unknown_word_is_malformed(line: str, reason: str) -> None:
    """A typing error is never taken for a default."""
    good = ['environment = "production"', "expires = 2027-10-01", 'quorum = "all(a, b)"']
    field = line.partition(" ")[0]
    lines = [kept for kept in good if not kept.startswith(field)] + [line]
    tables = "[thresholds]\nroot = 2\nenrolment = 2\ngolden = 2\n[host]\npcrs = [0]\n"
    tables += 'trust_classes = ["hardware"]\nvendor_roots = ["a.pem"]\n'
    text = "\n".join([*lines, 'authorities = ["a.cer"]', 'token_classes = ["software"]', tables])
    with pytest.raises(Malformed, match="not a valid draft") as malformed:
        decode_draft(text.encode())
    assert reason in malformed.value.reason
