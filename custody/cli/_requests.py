"""``status``, ``cancel`` and ``receipt``: what a deploy host has asked for, and how it ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from custody.cli import _words
from custody.cli._home import (
    AnswersOption,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    example,
    moment,
    open_home,
    read_env,
)
from custody.cli._keystatus import (
    KeyRequestView,
    is_key_host,
    key_place,
    key_standings,
    key_view,
    show_key_requests,
)
from custody.cli._log import LogOption, offer
from custody.cli._open import check_outputs, hand_out, place_asked_from
from custody.cli._opening import BurnOption, MaybeTpmOption, ReceiptOption, needed_tpm
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import MAX_STATEMENT_BYTES, Digest, Record
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.policy import Mode
from custody.keys.hostapi import HostTpm
from custody.ops.folders import read_file, read_request_file
from custody.ops.home import Home
from custody.ops.keyplace import KeyPlace
from custody.ops.landing import write_new_file
from custody.ops.outstanding import Death
from custody.ops.receipts import HostPlace, end_dead, give_up
from custody.ops.trust import current
from custody.ops.unseal import KeptStanding, kept_standing
from custody.rules.keyrequest import WARNING
from custody.rules.situation import Situation

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
    mode: Mode
    counter: str
    alive: bool
    died_of: Death | None
    burned: bool
    """Whether its burn receipt is there: a dead one is ended as soon as it is found."""
    unburnt: str
    asked_at: datetime
    until: datetime
    """When its key dies of age; dead already where not ``alive``."""


class KeptView(Record, frozen=True):
    """One key that this host keeps; ``opens`` is None where no environment was given."""

    manifest: Digest
    request: Digest
    mode: Mode
    golden: str | None
    epoch: int | None
    oldest: int | None
    alive: bool
    opens: bool | None
    reason: str
    kept_at: datetime


class StatusView(Record, frozen=True):
    """What ``status --json`` shows."""

    requests: tuple[OutstandingView, ...]
    kept: tuple[KeptView, ...]
    by_key: tuple[KeyRequestView, ...]
    """Requests by keys in an HSM, of a host without a TPM."""


def add_requests(app: typer.Typer) -> None:
    """Add the host's verbs for requests that are open, or have ended."""
    app.command(epilog=example("custody host status --tpm tpm: --env ./production"))(status)
    app.command(epilog=example("custody host cancel request.dsse --tpm tpm:"))(cancel)
    app.command(epilog=example("custody host receipt request.dsse --out receipt.dsse"))(receipt)


def status(
    tpm: MaybeTpmOption = None,
    env: EnvOption = None,
    answers: AnswersOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List open requests, and keys kept for restarts, and whether they still live.

    A request whose key has died is ended, with a burn receipt.
    With --env, kept keys are judged as at the next start.
    Of a host without a TPM it lists what was asked by keys in its HSM, and with --env and --answers
    who has consented and approved.  That needs no PIN.
    """
    screen = Screen(as_json=as_json)
    where, now = open_home(home, "host"), moment(None)
    asked = key_standings(screen, where, env, answers) if is_key_host(where) else ()
    by_key = tuple(key_view(standing, now) for standing in asked)
    found = OfTpm()
    if tpm is not None or not is_key_host(where):
        found = _of_tpm(screen, where, needed_tpm(tpm), env, now)

    def words() -> None:
        if found.requests or not asked:
            _show_requests(screen, found.requests)
        if asked:
            show_key_requests(screen, asked, by_key)
        if found.kept:
            rows = [(v.manifest[:16], v.mode, _kept_in(v), _kept_state(v)) for v in found.kept]
            screen.table(("kept key", "mode", "kept in", "state"), rows)

    screen.result(StatusView(requests=found.requests, kept=found.kept, by_key=by_key), words)
    if found.made:
        made = [read_file(path, max_bytes=MAX_STATEMENT_BYTES) for path in found.made]
        offer(screen, None, log, made)


class OfTpm(NamedTuple):
    """What a host's TPM still opens, and what was written of requests that had died."""

    requests: tuple[OutstandingView, ...] = ()
    kept: tuple[KeptView, ...] = ()
    made: tuple[Path, ...] = ()


def _of_tpm(screen: Screen, where: Home, tpm: str, env: list[Path] | None, now: datetime) -> OfTpm:
    place, opened = place_asked_from(where), open_tpm(tpm)
    clock = opened.clock()
    with place.ledger.lock():
        ended = end_dead(opened, place, now=now)
    dead = {each.entry.request: each for each in ended}
    living = [entry for entry in place.ledger.all() if entry.request not in dead]
    requests = tuple(
        OutstandingView(
            request=entry.request,
            manifest=entry.manifest,
            mode=entry.mode,
            counter=f"{entry.counter_index:#010x}",
            alive=entry.request not in dead,
            died_of=dead[entry.request].cause if entry.request in dead else None,
            burned=entry.request in dead and not dead[entry.request].unburnt,
            unburnt=dead[entry.request].unburnt if entry.request in dead else "",
            asked_at=entry.requested_at,
            until=now + timedelta(seconds=(entry.deadline_ms - clock.clock_ms) // 1000),
        )
        for entry in (*(each.entry for each in ended), *living)
    )
    paths = [
        path
        for each in ended
        for path in (place.receipt_path(each.entry.request), place.burn_path(each.entry.request))
        if path.exists()
    ]
    return OfTpm(requests, _kept(screen, where, place, opened, env), tuple(paths))


def _show_requests(screen: Screen, views: tuple[OutstandingView, ...]) -> None:
    def state(entry: OutstandingView) -> str:
        if not entry.died_of:
            return f"alive until {_words.time(entry.until)}"
        shown = "its burn receipt is written" if entry.burned else f"not burned: {entry.unburnt}"
        return f"{_DEATHS[entry.died_of]}; {shown}"

    if not views:
        screen.show("no open requests")
        return
    rows = [(v.request[:16], v.manifest[:16], v.mode, state(v)) for v in views]
    screen.table(("request", "manifest", "mode", "state"), rows)
    if not all(v.alive for v in views):
        screen.say("a dead request opens nothing; custody host receipt copies what shows it")


def _kept(
    screen: Screen, home: Home, place: HostPlace, tpm: HostTpm, env: list[Path] | None
) -> tuple[KeptView, ...]:
    keys = place.keys.all()
    situation: Situation | None = None
    if keys and env:
        try:
            situation = current(home, documents=read_env(env), now=moment(None))
        except CustodyError as error:
            # What is open is asked for at 3 a.m. too, when a list has just run out.
            screen.say(f"kept keys are not judged: {error.reason}")
    return tuple(
        _kept_view(kept_standing(each, tpm=tpm, place=place, situation=situation)) for each in keys
    )


def _kept_view(standing: KeptStanding) -> KeptView:
    return KeptView(
        manifest=standing.kept.manifest,
        request=standing.kept.request,
        mode=standing.mode,
        golden=standing.golden,
        epoch=standing.epoch,
        oldest=standing.oldest,
        alive=standing.life == "alive",
        opens=standing.opens,
        reason=standing.reason,
        kept_at=standing.kept.kept_at,
    )


def _kept_in(view: KeptView) -> str:
    return f"{view.golden}, epoch {view.epoch}" if view.golden else "(not in --env)"


def _kept_state(view: KeptView) -> str:
    if not view.alive:
        return f"dead: {view.reason}"
    if view.opens is None:
        return "alive; --env tells whether it would open"
    return f"opens: {view.reason}" if view.opens else f"would not open: {_words.plain(view.reason)}"


def cancel(
    request: NamedRequest,
    tpm: MaybeTpmOption = None,
    receipt: ReceiptOption = None,
    burn_receipt: BurnOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give up a request: burn its counter, so that its key opens nothing any more."""
    screen = Screen(as_json=as_json)
    check_outputs(receipt, burn_receipt)
    place, by_key, digest = _named_in(open_home(home, "host"), request)
    if digest in by_key.known():
        raise Refused(
            "it was asked by a key in an HSM, which nothing burns",
            check="host.request",
            where=f"request {digest[:16]}",
            hint="custody host end-by-key says that it was not opened",
        )
    entry = place.find(digest)
    burnt = give_up(entry, open_tpm(needed_tpm(tpm)), place, now=moment(None))
    screen.result(
        {"request": entry.request, "counter": burnt.value},
        lambda: screen.show(f"given up {entry.request}"),
    )
    hand_out(place, entry.request, receipt, burn_receipt)
    kept = (place.receipt_path(entry.request), place.burn_path(entry.request))
    offer(screen, None, log, [read_file(path, max_bytes=MAX_STATEMENT_BYTES) for path in kept])


def receipt(
    request: NamedRequest,
    out: OutOption,
    burn_receipt: BurnOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the receipt of a request that has ended; every one is kept in this host's home."""
    check_outputs(out, burn_receipt)
    place, by_key, digest = _named_in(open_home(home, "host"), request)
    kept = by_key.receipt_path(digest)
    if digest in by_key.known() and burn_receipt is not None:
        raise Refused(
            f"it has no burn receipt: {WARNING}",
            check="host.burn",
            where=f"request {digest[:16]}",
        )
    if not (kept.exists() or place.receipt_path(digest).exists()):
        raise Incomplete(
            "this request has not ended",
            missing=("a receipt",),
            where=f"request {digest[:16]}",
            hint="custody host open and cancel write one; of a host without a TPM, open-by-key and "
            "end-by-key",
        )
    if kept.exists():
        # Not while it may still be taken back.
        with by_key.alone(digest):
            write_new_file(out, read_file(kept, max_bytes=MAX_STATEMENT_BYTES))
    else:
        hand_out(place, digest, out, burn_receipt)
    Screen(as_json=as_json).made(*(path for path in (out, burn_receipt) if path))


def _named_in(home: Home, text: str) -> tuple[HostPlace, KeyPlace, Digest]:
    """Find the request that a person means, by its file or by how its digest begins, and what this
    host keeps of those by its TPM and of those by keys in an HSM.
    """
    path, beginning = Path(text), text.rstrip("…").lower()
    if path.is_file():
        digest = read_request_file(path).digest
        return place_asked_from(home), key_place(home), digest
    if len(beginning) < _LEAST_DIGITS or not set(beginning) <= set("0123456789abcdef"):
        raise typer.BadParameter(
            f"{text!r} is no file, and not {_LEAST_DIGITS} or more digits of a digest",
            param_hint="REQUEST",
        )
    place, by_key = place_asked_from(home), key_place(home)
    known = sorted({*place.known(), *by_key.known()})
    found = [digest for digest in known if digest.startswith(beginning)]
    if len(found) > 1:
        raise typer.BadParameter(f"{text!r} begins several; give more digits", param_hint="REQUEST")
    if not found:
        raise Refused(
            "this host knows no such request",
            check="host.request",
            where=text,
            hint="custody host status lists the open ones",
        )
    return place, by_key, found[0]
