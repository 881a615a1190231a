"""Where a host's further evidence comes from: ``--further TYPE=FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from custody.formats.policy import FurtherType
from custody.formats.request import MAX_FURTHER_BYTES, Further
from custody.ops.folders import read_file

FurtherOption = Annotated[
    list[str] | None,
    typer.Option(
        "--further",
        help="Evidence of another kind, as a URI and a file; may be repeated.",
        metavar="TYPE=FILE",
    ),
]


def read_further(given: list[str] | None) -> tuple[Further, ...]:
    """Read the files named, in the order of their types."""
    found: dict[str, Further] = {}
    for text in given or ():
        # The type may have an = of its own; a file's name with one can be given as ./name.
        kind, sign, path = text.rpartition("=")
        try:
            named = msgspec.convert(kind, FurtherType)
        except msgspec.ValidationError:
            named = ""
        if not (sign and named and path):
            raise typer.BadParameter(f"{text!r} is no TYPE=FILE", param_hint="--further")
        if named in found:
            raise typer.BadParameter(f"{named} is given twice", param_hint="--further")
        evidence = read_file(Path(path), max_bytes=MAX_FURTHER_BYTES)
        if not evidence:
            raise typer.BadParameter(f"{path} is empty", param_hint="--further")
        found[named] = Further(type=named, evidence=evidence)
    return tuple(found[kind] for kind in sorted(found))
