"""Tables on a terminal: nothing that one copies is ever broken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import typer

#: Between two columns.
_GAP = 2
#: Words of people get as much room as this, or they are hard to read.
_READABLE = 20


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw rows under column heads; a terminal that is too narrow gets an entry after the other.

    Lines break between words alone: half a URI, digest or time cannot be copied.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # A terminal that calls itself dumb has a width too, whatever rich makes of it.
    room = shutil.get_terminal_size().columns
    console = Console(width=room, height=len(rows) + 1, highlight=False)
    cells = [[cell_len(cell) for cell in column] for column in zip(columns, *rows, strict=True)]
    words = [
        [cell_len(word) for cell in column for word in cell.split()] or [0]
        for column in zip(columns, *rows, strict=True)
    ]
    widths = fit([max(column) for column in cells], [max(column) for column in words], room)
    if widths is None:
        _write_entries(columns, rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def fit(wanted: Sequence[int], least: Sequence[int], room: int) -> Sequence[int] | None:
    """Return how wide each column is, or None where they do not fit.

    ``wanted`` are the widths of the longest cells, ``least`` those of the longest words.
    """
    left = room - _GAP * (len(wanted) - 1)
    widths = [max(low, min(most, _READABLE)) for most, low in zip(wanted, least, strict=True)]
    left -= sum(widths)
    if left < 0:
        return None
    # Who lacks least first: what he does not need is there for the others.
    lacking = sorted(range(len(widths)), key=lambda at: wanted[at] - widths[at])
    for turn, at in enumerate(lacking):
        more = min(wanted[at] - widths[at], left // (len(lacking) - turn))
        widths[at] += more
        left -= more
    return widths


def _write_entries(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a line for each cell.  A long one goes on by itself, and is copied as one."""
    wide = max(map(len, columns))
    for at, row in enumerate(rows):
        if at:
            typer.echo()
        for column, cell in zip(columns, row, strict=True):
            if cell:
                typer.echo(f"{column:{wide}}  {cell}")
