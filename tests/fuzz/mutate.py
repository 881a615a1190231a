"""Making bad input out of good: bytes, and values within JSON, changed one or a few at a time."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from typing import Any

#: Numbers that sizes and counts go wrong at.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**53, 2**64, "", "0", [], {}, [[]], {"a": 1}),
    *("ab" * 32, "AA==", "2027-01-05T12:00:00Z", "\N{RIGHT-TO-LEFT OVERRIDE}", "\x00", "x" * 5000),
)
_MAX_BYTES = 256 << 10


def mutated(rng: random.Random, base: bytes, others: Sequence[bytes]) -> bytes:
    """Change ``base`` in up to eight places; ``others`` are there to be spliced in."""
    data = base
    if data[:1] in {b"{", b"["} and rng.random() < 0.6:
        data = _json(rng, data)
        if rng.random() < 0.7:
            return data[:_MAX_BYTES]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = _bytes(rng, data, others)
    return data[:_MAX_BYTES]


def _bytes(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 64)))
    match rng.randrange(9):
        case 0 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.randbytes(end - at) + data[end:]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:end] + data[at:end] * rng.choice((1, 2, 300)) + data[end:]
        case 4:
            return data[:at]
        case 5:
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("big", "little"))
            number = rng.choice(_EDGES) % (1 << 8 * size)
            edge = number.to_bytes(size, order)  # type: ignore[arg-type]
            return data[:at] + edge + data[at + size :]
        case 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            return data[:at] + other[start : start + rng.choice((4, 32, 4096))] + data[end:]
        case 7:
            word = rng.choice(
                (b" ", b"\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\\u0000", b'"', b"[")
            )
            return data[:at] + word * rng.choice((1, 1, 50)) + data[end:]
        case _:
            letters = "".join(rng.choices(string.printable, k=max(1, end - at)))
            return data[:at] + letters.encode() + data[end:]


def _json(rng: random.Random, data: bytes) -> bytes:
    """Change one value, name or number of entries within JSON, and write it as it was written."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = list(_places(document))
    if not places:
        return data
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1:
            holder[key] = rng.choice(_VALUES)
        case 2 if isinstance(holder, dict):
            holder[rng.choice(("zzz", f"{key}x", ""))] = holder[key]
        case 3:
            other, name = rng.choice(places)
            holder[key] = other[name]
        case _:
            _edit(rng, holder, key)
    ordered = rng.random() < 0.95
    try:
        written = json.dumps(
            document, sort_keys=ordered, separators=(",", ":"), ensure_ascii=rng.random() < 0.1
        )
        return written.encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _edit(rng: random.Random, holder: Any, key: Any) -> None:
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = rng.choice(_VALUES)
    elif isinstance(value, int):
        holder[key] = rng.choice((value + 1, value - 1, -value, *_EDGES))
    elif isinstance(value, str):
        raw = _bytes(rng, value.encode("utf-8", "surrogatepass"), (b"other",))
        holder[key] = raw.decode("utf-8", "ignore")
    elif isinstance(value, list) and value:
        holder[key] = value * rng.choice((2, 40)) if rng.random() < 0.5 else value[::-1]
    else:
        holder[key] = rng.choice(_VALUES)


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo and len(found) < 2000:
        each = todo.pop()
        entries = each.items() if isinstance(each, dict) else enumerate(each)
        for key, value in entries:
            found.append((each, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return found
