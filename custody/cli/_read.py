"""``read``: one file of a released bundle, from memory to standard output."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    PinFdOption,
    SiteOption,
    TpmOption,
    example,
)
from custody.cli._log import LogOption, followed, offer
from custody.cli._open import place_of
from custody.cli._opening import BaseOption
from custody.cli._session import site_keys, stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.formats.request import Request
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file
from custody.ops.landing import check_absent, write_new_file
from custody.ops.memory import SecretMemory
from custody.ops.reader import Reader
from custody.ops.unlock import unlock_release

_RANGE = re.compile(r"\A([0-9]{0,18}):([0-9]{0,18})\Z")
_PARTS_AT_ONCE = 8


def add_read(app: typer.Typer) -> None:
    """Add reading in memory to the host's verbs."""
    app.command(
        epilog=example(
            "custody host read ./bundle request.dsse model.safetensors --answers ./answers \\",
            "    --tpm tpm: --env ./production --receipt receipt.dsse | ./serve --weights -",
        )
    )(read)


def read(
    bundle: BundleArgument,
    request: Annotated[Path, typer.Argument(help="This host's request.dsse.")],
    file: Annotated[str, typer.Argument(help="Name of a file in the model.")],
    tpm: TpmOption,
    extent: Annotated[
        str, typer.Option("--range", help="Bytes A up to B, not counting B.", metavar="A:B")
    ] = ":",
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="Write the receipt here.", metavar="FILE")
    ] = None,
    answers: AnswersOption = None,
    base: BaseOption = None,
    site: SiteOption = None,
    pin_fd: PinFdOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
) -> None:
    """Write one file of a released bundle to standard output, and burn the request.

    Nothing is written to any disk.  It spends the approvals as ``open`` does, for one file; a
    program that reads several does so in Python (docs/api.md).
    """
    screen = Screen()
    begin, end = _parse_range(extent)
    if sys.stdout.isatty():
        raise typer.BadParameter("standard output is a terminal; pipe it", param_hint="FILE")
    if receipt is not None:
        check_absent(receipt)
    asked = read_statement_file(Request, request)
    standing = stand(home, env, "host", more=answers or (), requests=[asked])
    standing = followed(screen, standing, log)
    sealed = Bundle.at(bundle)
    with (
        site_keys(sealed, site, standing.home, pin_fd) as keys,
        unlock_release(
            sealed,
            asked,
            situation=standing.situation,
            tpm=open_tpm(tpm),
            place=replace(place_of(standing.home), site=keys),
            files=[file],
            base=base,
        ) as released,
    ):
        if receipt is not None:
            write_new_file(receipt, released.opened.receipt_data)
        made = [released.opened.receipt_data, released.opened.burn_data]
        offer(screen, standing.situation.trusted.policy, log, made)
        screen.say("vouched for by the publisher, part by part; the request is burnt")
        _pour(released.reader, file, begin, end)


def _parse_range(text: str) -> tuple[int, int | None]:
    match = _RANGE.match(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no range of bytes, as 0:4096", param_hint="--range")
    begin, end = match.groups()
    return int(begin or 0), int(end) if end else None


def _pour(reader: Reader, name: str, begin: int, end: int | None) -> None:
    """Write a range to standard output, all cores at work, a few parts at a time."""
    size = reader.file(name).size_bytes
    stop = size if end is None else min(end, size)
    memory = SecretMemory(_PARTS_AT_ONCE * reader.part_size_bytes)
    try:
        while begin < stop:
            # Up to a part's boundary, where a file begins on one: whole parts are read once.
            step = min(len(memory.view) - begin % reader.part_size_bytes, stop - begin)
            reader.read_into(name, begin, memory.view[:step])
            sys.stdout.buffer.write(memory.view[:step])
            begin += step
        sys.stdout.buffer.flush()
    finally:
        memory.close()
