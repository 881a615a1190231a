"""What a page does with names from strangers."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.report.words import MAX_TEXT_CHARS, clipped, cut, groups, later, plain

_HIDING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpu-1", "gpu-1"),
        ("naïve Ünïcode 模型", "naïve Ünïcode 模型"),
        ("fdp.\u202egpj", "fdp.\ufffdgpj"),
        ("a\u2066b\u2069", "a\ufffdb\ufffd"),
        ("a\x1b[31mb\r\nc", "a\ufffd[31mb\ufffd\ufffdc"),
        ("a\u200bb\ufeffc\u2028d", "a\ufffdb\ufffdc\ufffdd"),
    ],
)
def test_what_turns_or_hides_is_replaced(text: str, shown: str) -> None:
    """Control, direction and invisible characters are shown as one mark each, words are kept."""
    assert shown == plain(text)


@given(st.text())
def test_no_text_hides_anything(text: str) -> None:
    """Whatever a stranger writes, nothing that hides comes out, and no endless line."""
    shown = plain(text)
    assert set() == {unicodedata.category(char) for char in shown} & _HIDING
    assert len(shown) <= MAX_TEXT_CHARS + 40


def test_long_text_is_cut_and_says_so() -> None:
    """A text longer than a page takes is cut, with its length."""
    assert "x" * MAX_TEXT_CHARS + "… (5000 characters)" == plain("x" * 5000)


@given(st.text(), st.integers(min_value=8, max_value=60))
def test_names_in_pictures_fit(text: str, limit: int) -> None:
    """Lines in a picture do not break, so nothing in one is longer than its place."""
    assert max(len(clipped(text, limit)), len(cut(text, limit))) <= limit


def test_a_clipped_name_keeps_both_ends() -> None:
    """Names that differ at their end stay different."""
    assert "a-very-long-host…te-0001" == clipped("a-very-long-host-name-of-some-site-0001", 24)


def test_digests_are_cut_for_comparing() -> None:
    """A digest is written in eight groups of eight digits, all of it."""
    digest = "0123456789abcdef" * 4
    assert ("01234567", "89abcdef") * 4 == groups(digest)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (timedelta(seconds=1), "1 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=40), "40 d"),
    ],
)
def test_gaps_are_told_in_one_unit(gap: timedelta, words: str) -> None:
    """How much later something was is one number and one unit."""
    assert words == later(gap)
