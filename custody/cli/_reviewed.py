"""What comes before and after an officer's yes: requests are shown, judged anew, and answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from custody.cli import _words
from custody.cli._anew import judged_anew
from custody.cli._log import followed, offer
from custody.cli._session import Standing, Unlocked, read_requests, stand, unlocked
from custody.cli._ui import Screen
from custody.errors import CustodyError, Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.keyrequest import Consent
from custody.formats.manifest import Manifest
from custody.ops.answers import Answered, own_answers
from custody.ops.approve import Review, review_requests
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.ops.landing import check_absent, check_folder, disk_errors, write_new_file
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import passed

#: What an answer is, and what its author did.
_ANSWERS: dict[str, tuple[type[Approval | Consent | Denial], str]] = {
    "approval": (Approval, "approved"),
    "consent": (Consent, "consented to"),
    "denial": (Denial, "denied"),
}
#: Six minutes: less would be over before the answer is carried to the host.
_LEAST_SECONDS = 360

RequestsArgument = Annotated[
    list[Path], typer.Argument(help="One or more request.dsse.", metavar="REQUEST")
]
PreviousOption = Annotated[
    Path | None,
    typer.Option("--previous", help="The release that runs now, to compare.", metavar="BUNDLE"),
]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--hours", help="How long it is good  [default: the policy's limit]", metavar="HOURS"
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What was given to a command that shows requests and then answers them."""

    bundle: Path
    requests: Sequence[Path]
    out: Path
    env: Sequence[Path] | None
    previous: Path | None
    answers: Sequence[Path] | None
    hours: float | None
    yes: bool
    log: str | None
    home: Path | None
    pin_fd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Requests that an officer was shown and said yes to; ``situation`` is that of his yes."""

    bundle: Bundle
    requests: Sequence[Statement[Asking]]
    situation: Situation
    home: Home
    keys: Unlocked
    lifetime: timedelta | None


#: What refuses an officer's yes to requests before he is asked for it, by who and when he is.
MayAnswer = Callable[
    [Statement[Manifest], Sequence[Statement[Asking]], Situation, Home, Signer], object
]


def answer_reviewed(
    screen: Screen,
    given: Given,
    kind: Literal["approval", "consent"],
    *,
    asks: str,
    may: MayAnswer,
    act: Callable[[Agreed], Sequence[Answered]],
) -> Sequence[Answered]:
    """Show requests, ask (``asks``, to which their number is added), and write what ``act`` gives.

    ``may`` is asked before the officer is.  The answer is of the moment after his yes, and so is
    what it is judged by: a terminal may have stood open over night.
    """
    check_folder(given.out)
    opened, asked = Bundle.at(given.bundle), read_requests(given.requests)
    standing = stand(
        given.home,
        given.env,
        "officer",
        more=given.answers or (),
        answers=given.out,
        requests=asked,
    )
    standing = followed(screen, standing, given.log)
    policy = standing.situation.trusted.policy
    lifetime = answer_lifetime(given.hours, longest=policy.limits.approval_seconds)
    paths = answer_paths(given.out, asked, standing, kind)
    with unlocked(standing.home, given.pin_fd) as keys:
        found = review_requests(
            opened,
            asked,
            situation=standing.situation,
            opener=keys.opener_for(opened),
            previous=Bundle.at(given.previous) if given.previous else None,
        )
        if not screen.as_json:
            _words.show_review(screen, found, checks=False, to_stderr=True)
        stop_if_unsound(found)
        may(opened.statement, asked, standing.situation, standing.home, keys.signer)
        screen.confirm(f"{asks} {_words.count(len(asked), 'request')}?", yes=given.yes)
        answers = act(
            Agreed(
                bundle=opened,
                requests=asked,
                situation=judged_anew(screen, standing.home, standing.situation),
                home=standing.home,
                keys=keys,
                lifetime=lifetime,
            )
        )
    write_answers(screen, answers, paths)
    offer(screen, policy, given.log, [one.data for one in answers])
    return answers


def answer_lifetime(hours: float | None, *, longest: int) -> timedelta | None:
    """Read --hours; what the policy does not allow is not cut to what it does."""
    if hours is None:
        return None
    # So asked that what is no number is refused too.
    if not _LEAST_SECONDS <= hours * 3600 <= longest:
        raise typer.BadParameter(
            f"from {_LEAST_SECONDS / 3600:g} to {longest / 3600:g}, the policy's limit",
            param_hint="--hours",
        )
    return timedelta(seconds=int(hours * 3600))


def stop_if_unsound(found: Review) -> None:
    """Refuse with the first check that fails."""
    for verdict in (*found.verdicts, *(v for r in found.requests for v in r.verdicts)):
        if verdict.outcome == "fail":
            raise Refused(
                verdict.reason,
                check=verdict.check,
                where=verdict.subject or None,
                hint="to say so for the record: custody officer deny",
            )


def answer_paths(
    out: Path,
    asked: Sequence[Statement[Asking]],
    standing: Standing,
    kind: Literal["approval", "consent", "denial"],
) -> list[Path]:
    """Name the files of answers, none of which may be there: sooner said than after the PIN."""
    officer = standing.home.identity().principal
    paths = [out / f"{request.digest[:16]}.{officer}.{kind}.dsse" for request in asked]
    for request, path in zip(asked, paths, strict=True):
        _check_unanswered(request, path, standing, kind)
        check_absent(path)
    return paths


def _check_unanswered(
    request: Statement[Asking],
    path: Path,
    standing: Standing,
    kind: Literal["approval", "consent", "denial"],
) -> None:
    """Say of an answer that is in the way, if it holds, that it was given (``answer.given``)."""
    if not path.is_file():
        return
    form, did = _ANSWERS[kind]
    try:
        statement = read_statement_file(form, path)
    except CustodyError:
        return
    given, trusted = statement.predicate, standing.situation.trusted
    _, author, shown = check_author(
        statement, trusted.policy, role="officer", check="answer", subject="answer"
    )
    if author != standing.home.identity().principal or not passed(shown):
        return
    if given.request != request.digest or given.policy != trusted.digest:
        return
    until = None if isinstance(given, Denial) else given.expires_at
    if until is not None and (
        until <= standing.situation.now or own_answers(standing.home, Denial, request)
    ):
        return
    when = "" if until is None else f" (until {_words.time(until)})"
    raise Refused(
        f"you have {did} this already{when}",
        check="answer.given",
        where=str(path),
        hint="it counts as it is: carry it to the host; of several requests leave this one out",
    )


def write_answers(screen: Screen, given: Sequence[Answered], paths: Sequence[Path]) -> None:
    """Write answers where `answer_paths` has them."""
    for answer, path in zip(given, paths, strict=True):
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(path, answer.data)
    screen.made(*paths)
