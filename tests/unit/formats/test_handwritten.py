"""What is wrong in a file that a person wrote is told in words, and by its line."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from custody.errors import Malformed
from custody.formats.handwritten import decode_toml
from custody.formats.policy_draft import Draft, decode_draft

DRAFT = """environment = "production"
expires = 2027-01-01
quorum = "2 of (a, b)"
token_classes = ["software"]
authorities = ["a.cer"]

[thresholds]
root = 2
enrolment = 2
golden = 2

[host]
pcrs = [0, 2]
trust_classes = ["software"]
vendor_roots = ["v.pem"]
"""
FAULTS = {
    ("root = 2", "root = 1"): "line 8: root in [thresholds] is to be at least 2",
    ("root = 2", "root = '2'"): "line 8: root in [thresholds] is to be a whole number, and is text"
    " in quotes",
    ("root = 2\n", ""): "line 7: root in [thresholds] is missing",
    ("pcrs = [0, 2]", "pcrs = []"): "line 13: pcrs in [host] is to have at least 1 item",
    ("[0, 2]", '[0, "x"]'): "line 13: item 2 of pcrs in [host] is to be a whole number, and is text"
    " in quotes",
    ('["software"]\nv', '["soft"]\nv'): "line 14: item 1 of trust_classes in [host] cannot be"
    " 'soft'",
    ("quorum =", "quorun ="): "line 3: quorun is not known",
    ('quorum = "2 of (a, b)"\n', ""): "quorum is missing",
    ("[host]", "[hosts]"): "line 12: hosts is not known",
    ("expires = 2027-01-01", "expires = 2027"): "line 2: expires is to be a date, as 2027-01-31,"
    " and is a whole number",
    ('"production"', '"Pro duction"'): "line 1: environment is to be a name of 1 to 63 of a-z, 0-9,"
    " dot, dash and underscore",
    ('"2 of (a, b)"', "2 of"): "line 3, column 12: expected newline or end of document after a"
    " statement",
}


@pytest.mark.parametrize(("change", "said"), FAULTS.items(), ids=[new for (_, new) in FAULTS])
def test_a_fault_is_told_by_its_line(change: tuple[str, str], said: str) -> None:
    """No word of the library that reads it, and no path of its own kind."""
    old, new = change
    assert old in DRAFT
    decode_draft(DRAFT.encode())
    with pytest.raises(Malformed) as malformed:
        decode_draft(DRAFT.replace(old, new, 1).encode())
    assert f"not a valid draft: {said}" == malformed.value.reason


class Seat(msgspec.Struct, forbid_unknown_fields=True):
    """A row of a table that comes several times."""

    name: Annotated[str, msgspec.Meta(max_length=3)]


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """A document of rows."""

    people: list[Seat]


def test_a_row_is_named_by_its_number() -> None:
    """Of tables that come several times the right one is named, and the line of it."""
    text = '[[people]]\nname = "ida"\n\n[[people]]\nname = "caspar"\n'
    with pytest.raises(Malformed) as malformed:
        decode_toml(Rows, text.encode(), what="list")
    assert (
        "not a valid list: line 5: name in [[people]] 2 is to have at most 3 characters"
        == malformed.value.reason
    )


def test_a_line_is_not_guessed() -> None:
    """Where words of several lines look like the key as well, no line is named."""
    text = DRAFT.replace("root = 2", 'root = """\nroot = 3\n"""')
    with pytest.raises(Malformed) as malformed:
        decode_draft(text.encode())
    assert "not a valid draft: root in [thresholds] is to be" in malformed.value.reason


def reason_of(data: bytes) -> str:
    """Say why a draft is malformed; nothing where it is good."""
    try:
        decode_toml(Draft, data, what="draft")
    except Malformed as malformed:
        return malformed.reason
    return ""


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
@example(b"\xff")
@example(b"a.b.c = 1\n[a]\n")
@example(b'"quo ted" = 1')
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    """Whatever lies there, the reason is one printable line."""
    assert reason_of(data).isprintable()


@given(st.data())
def test_a_changed_draft_is_read_or_malformed(data: st.DataObject) -> None:
    """A draft with a piece cut out, doubled or replaced never fails otherwise."""
    first = data.draw(st.integers(0, len(DRAFT)))
    last = data.draw(st.integers(first, min(len(DRAFT), first + 30)))
    piece = data.draw(st.sampled_from(["", DRAFT[first:last] * 2, "[", '"', "=", "\n[[host]]\n"]))
    assert reason_of((DRAFT[:first] + piece + DRAFT[last:]).encode()).isprintable()
