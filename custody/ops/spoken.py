"""Digests as people say them to each other."""

from __future__ import annotations

from custody.encoding import Digest

#: ICAO Annex 10, volume II, 5.2.1.3: the words radio operators all over the world spell by.
_ICAO = {"a": "alfa", "b": "bravo", "c": "charlie", "d": "delta", "e": "echo", "f": "foxtrot"}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spoken(digest: Digest) -> tuple[str, ...]:
    """Write a digest as eight lines to read aloud: eight hex digits each, then their words.

    Every digit is spoken: who can choose documents could otherwise search for two whose digests
    agree in the part that is.
    """
    groups = [digest[at : at + 8] for at in range(0, len(digest), 8)]
    return tuple(f"{group}  {' '.join(_say_digit(char) for char in group)}" for group in groups)


def _say_digit(char: str) -> str:
    return _DIGITS[int(char)] if char.isdigit() else _ICAO[char]
