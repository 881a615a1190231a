"""``read``: one file of a released bundle, from memory to standard output."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    PinFdOption,
    SiteOption,
    example,
)
from custody.cli._log import LogOption, followed, offer
from custody.cli._open import judged_by_site, place_of
from custody.cli._opening import BaseOption, MaybeTpmOption, needed_tpm
from custody.cli._session import Standing, site_keys, stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.errors import Refused
from custody.formats.envelope import Statement, of_kind
from custody.formats.keyrequest import KeyRequest
from custody.formats.request import Request
from custody.ops.bundle import Bundle
from custody.ops.folders import read_request_file
from custody.ops.landing import check_absent, write_new_file
from custody.ops.memory import SecretMemory
from custody.ops.reader import Reader
from custody.ops.unlock import unlock_release
from custody.rules.keyrequest import WARNING

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
    tpm: MaybeTpmOption = None,
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
    program that reads several does so in Python (docs/api.md).  A request by a key in an HSM has no
    burn; this is its one opening.
    """
    screen = Screen()
    begin, end = _parse_range(extent)
    if sys.stdout.isatty():
        raise typer.BadParameter("standard output is a terminal; pipe it", param_hint="FILE")
    if receipt is not None:
        check_absent(receipt)
    asked = read_request_file(request)
    standing = stand(home, env, "host", more=answers or (), requests=[asked])
    standing = followed(screen, standing, log)
    reading = Reading(Bundle.at(bundle), file, standing, base, site, pin_fd)
    by_key, by_tpm = of_kind(KeyRequest, asked), of_kind(Request, asked)
    if by_key is not None:
        opening = _by_key(reading, by_key)
    elif by_tpm is not None:
        opening = _by_tpm(reading, by_tpm, needed_tpm(tpm))
    else:
        raise Refused("a request of a kind that nobody opens", check="request.kind")
    with opening as opened:
        if receipt is not None:
            write_new_file(receipt, opened.made[0])
        offer(screen, standing.situation.trusted.policy, log, opened.made)
        screen.say(f"vouched for by the publisher, part by part; {opened.ended}")
        _pour(opened.reader, file, begin, end)


class Reading(NamedTuple):
    """What is to be read, by whom, and what opening it may take."""

    bundle: Bundle
    file: str
    standing: Standing
    base: Path | None
    site: Path | None
    pin_fd: int | None


class OpenedToRead(NamedTuple):
    """A reader, the statements that opening it made, the receipt first, and how it was ended."""

    reader: Reader
    made: list[bytes]
    ended: str


@contextmanager
def _by_tpm(reading: Reading, request: Statement[Request], tpm: str) -> Iterator[OpenedToRead]:
    standing = reading.standing
    with (
        site_keys(reading.bundle, reading.site, standing.home, reading.pin_fd) as keys,
        unlock_release(
            reading.bundle,
            request,
            situation=judged_by_site(Screen(), standing, keys),
            tpm=open_tpm(tpm),
            place=replace(place_of(standing.home), site=keys),
            files=[reading.file],
            base=reading.base,
        ) as released,
    ):
        made = [released.opened.receipt_data, released.opened.burn_data]
        yield OpenedToRead(released.reader, made, "the request is burnt")


@contextmanager
def _by_key(reading: Reading, request: Statement[KeyRequest]) -> Iterator[OpenedToRead]:
    # Of a host with a TPM nobody waits for these.
    from custody.cli._keyhost import key_host, key_hosts_site
    from custody.ops.keyhost import read_by_key

    standing = reading.standing
    with (
        key_hosts_site(reading.bundle, reading.site, standing, reading.pin_fd) as keys,
        key_host(standing, reading.pin_fd, keys) as host,
        read_by_key(
            reading.bundle,
            request,
            situation=judged_anew(Screen(), standing.home, standing.situation),
            host=host,
            files=[reading.file],
            base=reading.base,
        ) as released,
    ):
        made = [released.opened.receipt_data]
        yield OpenedToRead(released.reader, made, f"the request is opened once; {WARNING}")


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
