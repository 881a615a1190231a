"""One row per measurement: what ``latest.json`` is a list of, and what the table shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``ratio`` is ``ours / peer``; both are None where there is nothing to compare with."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    note: str = ""


def compared(name: str, unit: str, ours: float, peer: float, note: str = "") -> Row:
    """Compare a figure of ours with one of a peer's."""
    return Row(
        name=name,
        unit=unit,
        ours=_short(ours),
        peer=_short(peer),
        ratio=round(ours / peer, 3),
        note=note,
    )


def alone(name: str, unit: str, ours: float, note: str = "") -> Row:
    """Give a figure that nobody else has."""
    return Row(name=name, unit=unit, ours=_short(ours), note=note)


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, replacing what was there."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[Row]:
    """Read rows."""
    return [Row(**row) for row in json.loads(path.read_text())]


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as plain text."""
    cells = [("name", "unit", "ours", "peer", "ratio", "note"), *map(words, rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(5)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line[:5], widths, strict=True))
        )
        + f"  {line[5]}".rstrip()
        for line in cells
    )


def words(row: Row) -> tuple[str, ...]:
    """Write the six columns of a row."""
    numbers = ("" if n is None else f"{n:g}" for n in (row.ours, row.peer, row.ratio))
    return (row.name, row.unit, *numbers, row.note)


def _short(value: float) -> float:
    """Keep four digits: the noise is in the second or third."""
    return float(f"{value:.4g}")
