"""What a host without a TPM has asked for by keys in its HSM, and where each request stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from custody.cli import _words
from custody.cli._home import moment, read_env
from custody.cli._ui import Screen
from custody.encoding import Digest, Record
from custody.errors import CustodyError
from custody.ops.home import Home
from custody.ops.keyplace import KeyPlace, KeyStanding, standings_by_key
from custody.ops.trust import current
from custody.rules.situation import Situation

#: Of requests that have ended, so many are shown to people; JSON has them all.
_ENDED_SHOWN = 10

State = Literal["open", "past-deadline", "opened", "given-up"]


class KeyRequestView(Record, frozen=True):
    """One request by a key in an HSM; the last eight say nothing where it was not judged."""

    request: Digest
    manifest: Digest
    asked_at: datetime
    deadline: datetime
    state: State
    ended_at: datetime | None
    reason: str
    unfinished: str
    """Where an opening that stopped half way was to appear, or empty."""
    judged: bool
    refused: str
    """Why it would be refused whatever officers answer, or empty."""
    consented: tuple[str, ...]
    approved: tuple[str, ...]
    unconsented: tuple[_words.MissingView, ...]
    missing: tuple[_words.MissingView, ...]
    unlogged: bool
    ready: bool


def key_place(home: Home) -> KeyPlace:
    """Return where a host's home keeps what it asked by keys in an HSM."""
    return KeyPlace(home.path / "keyrequests", home.path / "receipts")


def is_key_host(home: Home) -> bool:
    """Tell whether a host of this home has keys in an HSM."""
    return home.has_identity() and home.identity().role == "host"


def key_standings(
    screen: Screen, home: Home, env: Sequence[Path] | None, answers: Sequence[Path] | None
) -> tuple[KeyStanding, ...]:
    """Say where each request stands, by the answers at hand where an environment was named."""
    place = key_place(home)
    situation: Situation | None = None
    if env and place.all():
        try:
            documents = read_env(env, *(answers or ()))
            situation = current(home, documents=documents, now=moment(None))
        except CustodyError as error:
            # What is open is asked for at 3 a.m. too, when a list has just run out.
            screen.say(f"answers are not judged: {error.reason}")
    return standings_by_key(place, situation)


def key_view(standing: KeyStanding, now: datetime) -> KeyRequestView:
    """Turn one standing into what JSON shows."""
    asked, judged = standing.request.predicate, standing.judgement
    receipt = standing.receipt.predicate if standing.receipt is not None else None
    tally = judged.tally if judged is not None else None
    refused = [v.reason for v in judged.verdicts if v.outcome == "fail"] if judged else []
    agreed = tally.consents if tally is not None else ()
    state: State = "open" if now < asked.terms.deadline else "past-deadline"
    if receipt is not None:
        state = "opened" if receipt.outcome == "opened" else "given-up"
    return KeyRequestView(
        request=standing.request.digest,
        manifest=asked.terms.manifest,
        asked_at=asked.requested_at,
        deadline=asked.terms.deadline,
        state=state,
        ended_at=receipt.finished_at if receipt is not None else None,
        reason=receipt.reason if receipt is not None else "",
        unfinished=str(standing.unfinished or ""),
        judged=judged is not None,
        refused=next(iter(refused), ""),
        consented=tuple(sorted({c.officer for c in agreed if c.counts})),
        approved=tuple(a.officer for a in tally.counted) if tally is not None else (),
        unconsented=_words.missing_views(tally.unconsented) if tally is not None else (),
        missing=_words.missing_views(tally.missing) if tally is not None else (),
        unlogged=judged is not None and judged.unlogged,
        ready=judged is not None and not refused and judged.tally.complete and not judged.unlogged,
    )


def show_key_requests(
    screen: Screen, standings: Sequence[KeyStanding], views: Sequence[KeyRequestView]
) -> None:
    """List requests, and of those that are open and were judged, who answered."""
    ended = [view for view in views if view.ended_at is not None]
    left_out = ended[:-_ENDED_SHOWN]
    shown = [view for view in views if view not in left_out]
    screen.table(
        ("request", "manifest", "by a key in the HSM"),
        [(v.request[:16], v.manifest[:16], _state(v)) for v in shown],
    )
    if left_out:
        screen.say(f"{_words.count(len(left_out), 'request')} that ended earlier: --json")
    for standing, view in zip(standings, views, strict=True):
        if standing.judgement is not None and view.state == "open" and not view.refused:
            screen.show(f"{view.request[:16]}")
            _words.show_tally(screen.show, standing.judgement.tally)
    if any(view.state == "open" and not view.judged for view in views):
        screen.say("--env, and --answers, tell who has consented and approved")
    if any(view.state == "past-deadline" for view in views):
        screen.say("custody host end-by-key says of a request that it was not opened")


def _state(view: KeyRequestView) -> str:
    if view.ended_at is not None:
        how = "opened" if view.state == "opened" else "given up"
        why = f": {_words.plain(view.reason)}" if view.reason else ""
        words = f"{how} {_words.time(view.ended_at)}{why}"
    elif view.state == "past-deadline":
        words = f"not opened; its deadline was {_words.time(view.deadline)}"
    else:
        words = f"open until {_words.time(view.deadline)}"
        if view.refused:
            words += f"; would be refused: {_words.plain(view.refused)}"
        elif view.ready:
            words += "; can be opened"
        elif view.unlogged and not view.missing:
            words += "; the log has not signed"
    stopped = f"; stopped half way into {_words.plain(view.unfinished)}" if view.unfinished else ""
    return words + stopped
