"""``status``, ``cancel`` and ``receipt``: what a deploy host has asked for, and how it ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    TpmOption,
    example,
    moment,
    open_home,
)
from custody.cli._open import BurnOption, ReceiptOption, check_outputs, hand_out, place_of
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import Digest, Record
from custody.errors import Incomplete, Refused
from custody.formats.request import Request
from custody.ops.folders import read_statement_file
from custody.ops.outstanding import Death
from custody.ops.receipts import HostPlace, give_up

_LEAST_DIGITS = 8
_DEATHS: dict[Death, str] = {
    "tpm.rebooted": "dead: rebooted or suspended since",
    "tpm.deadline": "dead: its deadline has passed",
}

NamedRequest = Annotated[
    str,
    typer.Argument(help="Its file, its digest, or how that begins.", metavar="REQUEST"),
]


class OutstandingView(Record, frozen=True):
    """One open request of this host."""

    request: Digest
    manifest: Digest
    counter: str
    alive: bool
    died_of: Death | None
    asked_at: datetime
    until: datetime
    """When its key dies of age; dead already where not ``alive``."""


def add_requests(app: typer.Typer) -> None:
    """Add the host's verbs for requests that are open, or have ended."""
    app.command(epilog=example("custody host status --tpm tpm:"))(status)
    app.command(epilog=example("custody host cancel request.dsse --tpm tpm:"))(cancel)
    app.command(epilog=example("custody host receipt request.dsse --out receipt.dsse"))(receipt)


def status(
    tpm: TpmOption,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the open requests of this host, and whether their keys still live."""
    screen = Screen(as_json=as_json)
    clock, now = open_tpm(tpm).clock(), moment(None)
    entries = place_of(open_home(home, "host")).ledger.all()
    views = tuple(
        OutstandingView(
            request=entry.request,
            manifest=entry.manifest,
            counter=f"{entry.counter_index:#010x}",
            alive=entry.alive(clock),
            died_of=entry.death(clock),
            asked_at=entry.requested_at,
            until=now + timedelta(seconds=(entry.deadline_ms - clock.clock_ms) // 1000),
        )
        for entry in entries
    )

    def state(entry: OutstandingView) -> str:
        return (
            _DEATHS[entry.died_of] if entry.died_of else f"alive until {_words.time(entry.until)}"
        )

    def words() -> None:
        if not views:
            screen.show("no open requests")
            return
        rows = [(v.request[:16], v.manifest[:16], state(v)) for v in views]
        screen.table(("request", "manifest", "state"), rows)
        if not all(v.alive for v in views):
            screen.say("a dead request opens nothing; the next one takes its place")

    screen.result(views, words)


def cancel(
    request: NamedRequest,
    tpm: TpmOption,
    receipt: ReceiptOption = None,
    burn_receipt: BurnOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give up a request: burn its counter, so that its key opens nothing any more."""
    screen = Screen(as_json=as_json)
    check_outputs(receipt, burn_receipt)
    place = place_of(open_home(home, "host"))
    entry = place.find(_digest_of(place, request))
    burnt = give_up(entry, open_tpm(tpm), place, now=moment(None))
    screen.result(
        {"request": entry.request, "counter": burnt.value},
        lambda: screen.show(f"given up {entry.request}"),
    )
    hand_out(place, entry.request, receipt, burn_receipt)


def receipt(
    request: NamedRequest,
    out: OutOption,
    burn_receipt: BurnOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the receipt of a request that has ended; every one is kept in this host's home."""
    check_outputs(out, burn_receipt)
    place = place_of(open_home(home, "host"))
    digest = _digest_of(place, request)
    if not place.receipt_path(digest).exists():
        raise Incomplete(
            "this request has not ended",
            missing=("a receipt",),
            where=f"request {digest[:16]}",
            hint="custody host open writes one, and custody host cancel",
        )
    hand_out(place, digest, out, burn_receipt)
    Screen(as_json=as_json).made(*(path for path in (out, burn_receipt) if path))


def _digest_of(place: HostPlace, text: str) -> Digest:
    """Find the request that a person means: by its file, or by how its digest begins."""
    path, beginning = Path(text), text.rstrip("…").lower()
    if path.is_file():
        return read_statement_file(Request, path).digest
    if len(beginning) < _LEAST_DIGITS or not set(beginning) <= set("0123456789abcdef"):
        raise typer.BadParameter(
            f"{text!r} is no file, and not {_LEAST_DIGITS} or more digits of a digest",
            param_hint="REQUEST",
        )
    found = [digest for digest in place.known() if digest.startswith(beginning)]
    if len(found) > 1:
        raise typer.BadParameter(f"{text!r} begins several; give more digits", param_hint="REQUEST")
    if not found:
        raise Refused(
            "this host knows no such request",
            check="host.request",
            where=text,
            hint="custody host status lists the open ones",
        )
    return found[0]
