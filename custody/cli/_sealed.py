"""Shares that are sealed to tokens: whom they are sealed to, and whose token opens which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._wiring import open_token
from custody.encoding import decode
from custody.formats.envelope import Statement
from custody.formats.policy import ShareKey
from custody.formats.recovery import RecoveryRecord, SealedShare
from custody.ops.admit import check
from custody.ops.folders import read_file, reading
from custody.ops.home import Home

_MAX_BYTES = 8192

SealToOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--seal-to",
        help="An admission with a share key: that person's share is sealed to his token.",
        metavar="FILE",
    ),
]
SealedOption = Annotated[
    list[Path] | None,
    typer.Option("--sealed", help="A sealed share; its token follows.", metavar="FILE"),
]
SealedTokenOption = Annotated[
    list[str] | None,
    typer.Option("--by", help="The token that opens it, one for each --sealed.", metavar="URI"),
]


def read_recipients(home: Home, admissions: Sequence[Path] | None) -> dict[str, ShareKey]:
    """Read whom shares are sealed to; every admission's proofs are checked."""
    from custody.ops.sealed_share import recipient_of

    people = [check(home, path).principal for path in admissions or ()]
    return {person.id: recipient_of(person) for person in people}


def open_sealed(
    record: Statement[RecoveryRecord], files: Sequence[Path] | None, tokens: Sequence[str] | None
) -> tuple[str, ...]:
    """Open sealed shares, each by its holder's token: one PIN after the other is asked."""
    from custody.ops.sealed_share import open_share

    files, tokens = files or (), tokens or ()
    if len(files) != len(tokens):
        raise typer.BadParameter("give one --by for each --sealed")
    words = []
    for path, uri in zip(files, tokens, strict=True):
        with reading(path):
            sealed = decode(SealedShare, read_file(path, max_bytes=_MAX_BYTES))
            with open_token(uri) as token, token.session():
                words.append(open_share(token, sealed, record))
    return tuple(words)
