"""Reading what people write by hand (TOML 1.0), and telling them what is wrong in it, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from custody.encoding import first_line
from custody.errors import Malformed

T = TypeVar("T", bound=msgspec.Struct)
#: A place in a document: names of tables and keys, and numbers of items from 0.
_Path = tuple[str | int, ...]

_AT = re.compile(r"(?P<fault>.*) - at `\$(?P<path>(?:\.[\w-]+|\[\d+\])*)`")
_PART = re.compile(r"\.(?P<name>[\w-]+)|\[(?P<item>\d+)\]")
_FIELD = re.compile(r"Object (?P<how>missing required|contains unknown) field `(?P<name>[^`]*)`")
_TYPE = re.compile(r"Expected `(?P<wanted>\w+)`, got `(?P<found>\w+)`")
_BOUND = re.compile(r"Expected `(?P<kind>\w+)`(?P<size> of length)? (?P<sign>[<>]=) (?P<bound>\d+)")
_WORD = re.compile(r"Invalid (?:enum )?value (?P<word>.*)")
_SYNTAX = re.compile(r"(?P<fault>.*) \(at (?P<line>line \d+, column \d+)\)")
_HEADER = re.compile(r"\s*\[(?P<twice>\[?)\s*(?P<name>[\w-]+(?:\.[\w-]+)*)\s*\]")
_KEY = re.compile(r"\s*(?P<name>[\w-]+)\s*=")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list in brackets",
    "object": "a table",
    "date": "a date, as 2027-01-31",
}


def decode_toml(kind: type[T], data: bytes, *, what: str) -> T:
    """Read a ``what`` of a kind; an unknown word in it is `Malformed`, so that no typing error is a
    default.  The reason names the line, where that can be told.
    """
    try:
        return msgspec.toml.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(f"not a valid {what}: {_reason(error, data)}") from error


def _reason(error: Exception, data: bytes) -> str:
    """Say what is wrong; what the library's words are not known to mean, in the library's words."""
    said = first_line(error)
    if syntax := _SYNTAX.fullmatch(said):
        return f"{syntax['line']}: {_uncapitalised(syntax['fault'])}"
    if not isinstance(error, msgspec.ValidationError):
        return said
    found = _AT.fullmatch(said)
    path = _parse(found["path"]) if found else ()
    fault = found["fault"] if found else said
    if field := _FIELD.fullmatch(fault):
        missing = field["how"].startswith("missing")
        named = _named((*path, field["name"]))
        words = f"{named} is missing" if missing else f"{named} is not known"
        return _placed(words, path if missing else (*path, field["name"]), data)
    return _placed(_about(_named(path), fault), path, data) if path else said


def _about(named: str, fault: str) -> str:
    if wrong := _TYPE.fullmatch(fault):
        wanted, found = (_TYPES.get(wrong[name], wrong[name]) for name in ("wanted", "found"))
        return f"{named} is to be {wanted}, and is {found}"
    if bound := _BOUND.fullmatch(fault):
        least = "at least" if bound["sign"] == ">=" else "at most"
        if not bound["size"]:
            return f"{named} is to be {least} {bound['bound']}"
        thing = "item" if bound["kind"] == "array" else "character"
        several = "" if bound["bound"] == "1" else "s"
        return f"{named} is to have {least} {bound['bound']} {thing}{several}"
    if word := _WORD.fullmatch(fault):
        return f"{named} cannot be {word['word']}"
    if " matching regex " in fault:
        return f"{named} has not the form that it must have"
    if fault.startswith("Expected "):
        return f"{named} is to be {fault.removeprefix('Expected ')}"
    return f"{named}: {_uncapitalised(fault)}"


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]


def _parse(path: str) -> _Path:
    return tuple(
        part["name"] if part["name"] is not None else int(part["item"])
        for part in _PART.finditer(path)
    )


def _named(path: _Path) -> str:
    """Name a place: ``pcrs in [host]``, ``role in [[people]] 2``, ``item 1 of pcrs in [host]``."""
    *table, last = path
    item = ""
    if isinstance(last, int) and table:
        item = f"item {last + 1} of "
        *table, last = table
    words = [str(name) for name in table if isinstance(name, str)]
    if not words:
        return f"{item}{last}"
    number = next((name + 1 for name in table if isinstance(name, int)), None)
    inside = f"[{'.'.join(words)}]" if number is None else f"[[{'.'.join(words)}]] {number}"
    return f"{item}{last} in {inside}"


def _placed(words: str, path: _Path, data: bytes) -> str:
    """Put the number of the line in front, if one line alone can be meant."""
    lines = [line for known, line in _places(data) if known == path]
    while not lines and path and isinstance(path[-1], int):
        path = path[:-1]
        lines = [line for known, line in _places(data) if known == path]
    return f"line {lines[0]}: {words}" if len(lines) == 1 else words


def _places(data: bytes) -> Iterator[tuple[_Path, int]]:
    """List what begins in which line, from 1: tables and keys as people write them."""
    table: _Path = ()
    seen: dict[str, int] = {}
    for number, line in enumerate(data.decode(errors="replace").split("\n"), start=1):
        if header := _HEADER.match(line):
            name = header["name"]
            table = tuple(name.split("."))
            if header["twice"]:
                table = (*table, seen.setdefault(name, 0))
                seen[name] += 1
            yield table, number
        elif key := _KEY.match(line):
            yield (*table, key["name"]), number
