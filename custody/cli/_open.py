"""``request`` and ``open``: how a deploy host comes by a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli import _words
from custody.cli._anew import judged_anew
from custody.cli._eventlog import EventLogOption, read_event_log
from custody.cli._further import FurtherOption, read_further
from custody.cli._home import (
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    example,
)
from custody.cli._log import LogOption, followed, offer
from custody.cli._opening import MaybeTpmOption, Opening, needed_tpm
from custody.cli._session import Standing, site_keys, stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import MAX_STATEMENT_BYTES, Digest, Record
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.policy import Mode, Policy
from custody.formats.receipt import BadShare
from custody.formats.request import Request
from custody.ops.ahead import Ahead
from custody.ops.bundle import Bundle
from custody.ops.folders import read_file, read_request_file, read_statement_file
from custody.ops.home import Home
from custody.ops.keys import ShareOpener
from custody.ops.landing import check_new_file, unfinished_output, write_new_file
from custody.ops.outstanding import Ledger
from custody.rules.situation import Situation

if TYPE_CHECKING:  # who asks opens nothing yet
    from custody.ops.open import Opened
    from custody.ops.receipts import HostPlace

ModeOption = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="once; or keep the key in the TPM for restarts: sealed, in this boot state, or "
        "sealed-updatable, also in later ones that enrollers authorise.",
    ),
]


class OpenedView(Record, frozen=True):
    """What ``open --json`` shows."""

    target: str
    name: str
    version: str
    files: int
    officers: tuple[str, ...]
    bad_shares: tuple[str, ...]
    receipt: str
    taken_bytes: int


def add_request(app: typer.Typer) -> None:
    """Add asking to the host's verbs."""
    app.command(
        epilog=example(
            "custody host request ./bundle --tpm tpm: --env ./production --out request.dsse"
        )
    )(request)


def place_of(home: Home) -> HostPlace:
    """Return where a host's home keeps requests and receipts."""
    from custody.ops.kept import KeptKeys
    from custody.ops.receipts import HostPlace

    return HostPlace(
        ledger=_ledger_of(home),
        receipts=home.folder("receipts"),
        keys=KeptKeys(home.folder("kept")),
    )


def place_asked_from(home: Home) -> HostPlace:
    """Return what `place_of` does, of a home that something was asked from: a fresh one stays
    unmade, and is `Incomplete`.
    """
    if home.is_fresh():
        home.memory()
    return place_of(home)


def _ledger_of(home: Home) -> Ledger:
    return Ledger(home.folder("requests"))


def request(
    bundle: BundleArgument,
    out: OutOption,
    tpm: MaybeTpmOption = None,
    env: EnvOption = None,
    event_log: EventLogOption = None,
    mode: ModeOption = "once",
    further: FurtherOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a bundle: terms, a key that only this TPM has and only this boot, and evidence."""
    from custody.ops.request import request_release

    screen = Screen(as_json=as_json)
    named = needed_tpm(tpm, home=home, instead="request-by-key")
    check_not_asked(out, bundle)
    check_new_file(out)
    standing = followed(screen, stand(home, env, "host"), log)
    made = request_release(
        Bundle.at(bundle).statement,
        situation=standing.situation,
        tpm=open_tpm(named),
        place=place_of(standing.home),
        event_log=read_event_log(event_log),
        mode=mode,
        further=read_further(further),
    )
    try:
        write_new_file(out, made.data)
    except CustodyError as error:
        named = made.statement.digest[:16]
        error.hint = f"the request stays open without its file: custody host cancel {named}"
        raise
    screen.made(out)
    offer(screen, standing.situation.trusted.policy, log, [made.data])


def check_not_asked(out: Path, bundle: Path) -> None:
    """Say of a request that is in the way, if it is for this bundle, that it is there to be
    answered (``request.asked``): to ask again is seldom what is wanted.
    """
    if not out.is_file():
        return
    try:
        asked = read_request_file(out)
    except CustodyError:
        return
    if asked.predicate.terms.manifest != Bundle.at(bundle).statement.digest:
        return
    ends_at = asked.predicate.ends_at
    when = (
        f"until {_words.time(ends_at)}"
        if ends_at is not None
        else f"at {_words.time(asked.predicate.requested_at)}"
    )
    raise Refused(
        f"this bundle was asked for already, {when}",
        check="request.asked",
        where=str(out),
        hint="officers answer that request; custody host status tells whether it lives; to ask "
        "once more, choose another name",
    )


def open_released(opening: Opening, ahead: Ahead) -> None:
    """Do what ``open`` is asked for; ``ahead`` may have memory for the model."""
    from custody.cli._finish import finished
    from custody.ops.open import open_release

    screen, out = Screen(as_json=opening.as_json), opening.out
    check_names(out, opening.receipt, opening.burn_receipt)
    asked = read_statement_file(Request, opening.request)
    # Before its outputs, for the model of a run that died is in their way.
    if finished(screen, opening, asked.digest):
        return
    check_outputs(out, opening.receipt, opening.burn_receipt)
    more = opening.answers or ()
    standing = stand(opening.home, opening.env, "host", more=more, requests=[asked])
    standing = followed(screen, standing, opening.log)
    place = place_of(standing.home)
    opened_tpm = open_tpm(opening.tpm)
    # One that has ended, or was never asked from here, waits for no site's PIN.
    place.find(asked.digest)
    if unfinished_output(out, asked.digest[:16]) is not None:
        screen.say("going on: what an interrupted run left is checked part by part")
    sealed = Bundle.at(opening.bundle)
    with site_keys(sealed, opening.site, standing.home, opening.pin_fd) as site:
        situation = judged_by_site(screen, standing, site)
        with (
            answers_shown(screen, sealed, asked, situation),
            screen.resumable(lambda: _goes_on(place, asked.digest, out)),
            screen.progress() as progress,
        ):
            opened = open_release(
                sealed,
                asked,
                out,
                situation=situation,
                tpm=opened_tpm,
                place=replace(place, site=site),
                base=opening.base,
                ahead=ahead,
                progress=progress,
            )
    if opening.base is not None and opened.contents.base is None:
        screen.say("--base was not needed: this bundle carries the whole model")
    policy = standing.situation.trusted.policy
    screen.result(
        _opened_view(out, opened, policy), lambda: _show_opened(screen, out, opened, policy)
    )
    hand_out(place, asked.digest, opening.receipt, opening.burn_receipt)
    offer(screen, policy, opening.log, [opened.receipt_data, opened.burn_data])


def judged_by_site(screen: Screen, standing: Standing, site: tuple[ShareOpener, ...]) -> Situation:
    """Return what to judge by: of this moment, where a site's PIN may have been waited for."""
    if not site:
        return standing.situation
    return judged_anew(screen, standing.home, standing.situation)


def _goes_on(place: HostPlace, request: Digest, out: Path) -> bool:
    """Tell whether an opening that was stopped goes on: with the model, or with the burn alone."""
    from custody.ops.open import ended_in, interrupted

    if unfinished_output(out, request[:16]) is not None:
        return True
    entry = place.ledger.left(request)
    return ended_in(request, out, place) if entry is None else interrupted(entry, out, place)


def check_outputs(*paths: Path | None) -> None:
    """Look at every output before anything is opened: afterwards it cannot be opened again."""
    check_names(*paths)
    for path in paths:
        if path is not None:
            check_new_file(path)


def check_names(*paths: Path | None) -> None:
    """Refuse two outputs of one name."""
    named = [path.absolute() for path in paths if path is not None]
    if len(set(named)) < len(named):
        raise typer.BadParameter("two outputs have one name", param_hint="--out")


@contextmanager
def answers_shown(
    screen: Screen, bundle: Bundle, request: Statement[Asking], situation: Situation
) -> Iterator[None]:
    """Say who answered what where the answers are why a request cannot be opened."""
    try:
        yield
    except CustodyError as error:
        if isinstance(error, Incomplete) or getattr(error, "check", "") == "quorum.denied":
            from custody.ops.released import judge_answers

            judged = judge_answers(bundle.statement, request, situation)
            _words.show_answers(screen.say, judged.tally, situation.documents.unreadable)
            if isinstance(error, Incomplete) and judged.tally.unanswered:
                error.hint = "no answer to it was found: --answers DIR names their folder"
        raise


def hand_out(
    place: HostPlace, request: Digest, receipt: Path | None, burn_receipt: Path | None
) -> None:
    """Copy what the home keeps of a request's end to where it was asked for, if it is not there."""
    kept = ((receipt, place.receipt_path(request)), (burn_receipt, place.burn_path(request)))
    for target, source in kept:
        if target is None:
            continue
        try:
            data = read_file(source, max_bytes=MAX_STATEMENT_BYTES)
            # A run that died may have handed it out.
            if not _holds(target, data):
                write_new_file(target, data)
        except CustodyError as error:
            error.hint = f"it is kept: custody host receipt {request[:16]} --out FILE"
            raise


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and read_file(path, max_bytes=MAX_STATEMENT_BYTES) == data
    except CustodyError:
        return False


def _opened_view(out: Path, opened: Opened, policy: Policy) -> OpenedView:
    return OpenedView(
        target=str(out),
        name=opened.contents.name,
        version=opened.contents.version,
        files=len(opened.contents.files),
        officers=opened.officers,
        bad_shares=tuple(named_officer(bad, policy) for bad in opened.bad_shares),
        receipt=opened.receipt.digest,
        taken_bytes=_taken_bytes(opened),
    )


def _taken_bytes(opened: Opened) -> int:
    return opened.contents.base.size_bytes if opened.contents.base else 0


def named_officer(bad: BadShare, policy: Policy) -> str:
    """Name whose share a host calls bad: an officer, or a key."""
    holder = policy.holder(bad.officer)
    return holder.id if holder else bad.officer


def _show_opened(screen: Screen, out: Path, opened: Opened, policy: Policy) -> None:
    contents = opened.contents
    for bad in opened.bad_shares:
        screen.say(
            f"bad share from {named_officer(bad, policy)} (leaf {bad.leaf}, "
            f"key {bad.officer[:16]}…): left out; the receipt names him"
        )
    screen.show(
        f"opened   {_words.plain(contents.name)}, version {_words.plain(contents.version)}: "
        f"{_words.count(len(contents.files), 'file')}, into {out}"
    )
    if taken := _taken_bytes(opened):
        total = sum(file.size_bytes for file in contents.files)
        screen.show(f"taken    {_words.size(taken)} of {_words.size(total)} from the base")
    screen.show(f"approved {', '.join(opened.officers)}")
    screen.show(f"receipt  {opened.receipt.digest}")
