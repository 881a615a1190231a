"""Holding what a person typed to the format it goes into, before anything is signed or kept."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from custody.encoding import Name, Record, decode, encode
from custody.errors import Malformed

R = TypeVar("R", bound=Record)


def well_formed(record: R) -> R:
    """Return ``record`` if its own reader takes it; `Malformed` if not.

    Constructing a record checks no field, so without this a name with a space in it would be
    signed first and refused by everybody afterwards.
    """
    return decode(type(record), encode(record))


def check_name(text: str) -> str:
    """Return ``text`` if it is a name (`encoding.Name`); `Malformed` if not."""
    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError as error:
        raise Malformed(
            "not a name: lower-case letters, digits, dots, dashes and underscores, at most 63",
            where=text[:80],
        ) from error
