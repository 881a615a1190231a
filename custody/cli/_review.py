"""``review``, ``approve``, ``deny`` and ``status``: what an officer does with a request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    YesOption,
    example,
)
from custody.cli._log import LogOption, followed, offer
from custody.cli._session import read_requests, stand, unlocked
from custody.cli._ui import Screen
from custody.encoding import check_text
from custody.errors import Malformed, Refused
from custody.formats.approval import Approval
from custody.formats.asking import Asking
from custody.formats.envelope import Statement, decode_statement
from custody.ops.answers import Answered, own_answers
from custody.ops.approve import (
    Review,
    approve_requests,
    deny_requests,
    review_requests,
)
from custody.ops.bundle import Bundle
from custody.ops.landing import check_absent, check_folder, disk_errors, write_new_file

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


def add_review(app: typer.Typer) -> None:
    """Add the officer's verbs."""
    app.command(epilog=example("custody officer review ./bundle request.dsse --env ./production"))(
        review
    )
    app.command(
        epilog=example(
            "custody officer approve ./bundle requests/*.dsse --env ./production --out ./answers"
        )
    )(approve)
    app.command(
        epilog=example(
            "custody officer deny ./bundle request.dsse --reason 'evaluation is not finished' \\",
            "    --env ./production --out ./answers",
        )
    )(deny)
    app.command(
        epilog=example(
            "custody officer status ./bundle request.dsse --answers ./answers --env ./production"
        )
    )(status)


def review(
    bundle: BundleArgument,
    requests: RequestsArgument,
    env: EnvOption = None,
    previous: PreviousOption = None,
    answers: AnswersOption = None,
    public: Annotated[
        bool, typer.Option("--public", help="Leave the sealed contents closed: no token, no PIN.")
    ] = False,
    checks: Annotated[bool, typer.Option("--checks", help="Show every check made.")] = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show in words what is being asked of you.  Nothing is signed."""
    screen = Screen(as_json=as_json)
    opened, asked = Bundle.at(bundle), read_requests(requests)
    standing = stand(home, env, "officer", more=answers or (), requests=asked)
    standing = followed(screen, standing, log)
    if public:
        found = review_requests(opened, asked, situation=standing.situation)
    else:
        with unlocked(standing.home, pin_fd) as keys:
            found = review_requests(
                opened,
                asked,
                situation=standing.situation,
                opener=keys.opener_for(opened),
                previous=Bundle.at(previous) if previous else None,
            )
    screen.result(
        _words.review_view(found), lambda: _words.show_review(screen, found, checks=checks)
    )
    stop_if_unsound(found)


def approve(
    bundle: BundleArgument,
    requests: RequestsArgument,
    out: OutOption,
    env: EnvOption = None,
    previous: PreviousOption = None,
    answers: AnswersOption = None,
    hours: HoursOption = None,
    yes: YesOption = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Review requests for one bundle, then approve all of them with one PIN."""
    screen = Screen(as_json=as_json)
    check_folder(out)
    opened, asked = Bundle.at(bundle), read_requests(requests)
    standing = stand(home, env, "officer", more=answers or (), answers=out, requests=asked)
    standing = followed(screen, standing, log)
    lifetime = answer_lifetime(
        hours, longest=standing.situation.trusted.policy.limits.approval_seconds
    )
    paths = answer_paths(out, asked, standing.home.identity().principal, "approval")
    with unlocked(standing.home, pin_fd) as keys:
        found = review_requests(
            opened,
            asked,
            situation=standing.situation,
            opener=keys.opener_for(opened),
            previous=Bundle.at(previous) if previous else None,
        )
        if not as_json:
            _words.show_review(screen, found, checks=False, to_stderr=True)
        stop_if_unsound(found)
        screen.confirm(f"approve {_words.count(len(asked), 'request')}?", yes=yes)
        given = approve_requests(
            opened,
            asked,
            situation=standing.situation,
            home=standing.home,
            signer=keys.signer,
            opener=keys.opener_for(opened),
            lifetime=lifetime,
        )
    write_answers(screen, given, paths)
    offer(screen, standing.situation.trusted.policy, log, [one.data for one in given])
    until = {decode_statement(Approval, one.data).predicate.expires_at for one in given}
    screen.say(f"approved until {_words.time(min(until))}")


def deny(
    bundle: BundleArgument,
    requests: RequestsArgument,
    out: OutOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    env: EnvOption = None,
    yes: YesOption = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse requests, for the record.  A denial blocks nobody; it is shown to everybody.

    Whoever denies cannot approve the same request later.  An approval given before counts no more
    where the denial is seen, but who has only the approval does not see it: ask before you deny.
    """
    screen = Screen(as_json=as_json)
    _check_reason(reason)
    check_folder(out)
    standing = stand(home, env, "officer")
    asked = read_requests(requests)
    paths = answer_paths(out, asked, standing.home.identity().principal, "denial")
    for request in asked:
        if own_answers(standing.home, Approval, request):
            host = request.predicate.host
            screen.say(
                f"you approved {host}'s request; denied, it counts no more where both are seen"
            )
            screen.confirm("withdraw your approval?", yes=yes)
    with unlocked(standing.home, pin_fd) as keys:
        given = deny_requests(
            Bundle.at(bundle).statement,
            asked,
            reason=reason,
            situation=standing.situation,
            home=standing.home,
            signer=keys.signer,
        )
    write_answers(screen, given, paths)
    offer(screen, standing.situation.trusted.policy, log, [one.data for one in given])


def status(
    bundle: BundleArgument,
    requests: RequestsArgument,
    answers: AnswersOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has approved, what the quorum still lacks, and until when approvals hold."""
    screen = Screen(as_json=as_json)
    asked = read_requests(requests)
    standing = stand(home, env, "officer", more=answers or (), requests=asked)
    standing = followed(screen, standing, log)
    found = review_requests(Bundle.at(bundle), asked, situation=standing.situation)
    unreadable = standing.situation.documents.unreadable
    screen.result(_words.review_view(found), lambda: _words.show_status(screen, found, unreadable))


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


def _check_reason(reason: str) -> None:
    try:
        check_text(reason)
    except Malformed as error:
        raise typer.BadParameter(error.reason, param_hint="--reason") from error


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
    out: Path, asked: Sequence[Statement[Asking]], officer: str, kind: str
) -> list[Path]:
    """Name the files of answers, none of which may be there: sooner said than after the PIN."""
    paths = [out / f"{request.digest[:16]}.{officer}.{kind}.dsse" for request in asked]
    for path in paths:
        check_absent(path)
    return paths


def write_answers(screen: Screen, given: Sequence[Answered], paths: Sequence[Path]) -> None:
    """Write answers where `answer_paths` has them."""
    for answer, path in zip(given, paths, strict=True):
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(path, answer.data)
    screen.made(*paths)
