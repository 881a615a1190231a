"""``review``, ``approve``, ``deny`` and ``status``: what an officer does with a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._anew import judged_anew
from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutFolderOption,
    PinFdOption,
    YesOption,
    example,
)
from custody.cli._log import LogOption, followed, offer
from custody.cli._reviewed import (
    Given,
    HoursOption,
    PreviousOption,
    RequestsArgument,
    answer_paths,
    answer_reviewed,
    stop_if_unsound,
    write_answers,
)
from custody.cli._session import Standing, read_requests, stand, unlocked
from custody.cli._ui import Screen
from custody.encoding import check_text
from custody.errors import Malformed
from custody.formats.approval import Approval
from custody.formats.asking import Asking
from custody.formats.envelope import Statement, decode_statement
from custody.ops.approve import approve_requests, deny_requests, review_requests
from custody.ops.bundle import Bundle
from custody.ops.landing import check_folder
from custody.ops.officers import check_may_approve, yes_before


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
    out: OutFolderOption,
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
    """Review requests for one bundle, then approve all of them with one PIN.

    Those of hosts without a TPM need the consents of a quorum first: custody officer consent.
    """
    screen = Screen(as_json=as_json)
    given = answer_reviewed(
        screen,
        Given(
            bundle=bundle,
            requests=requests,
            out=out,
            env=env,
            previous=previous,
            answers=answers,
            hours=hours,
            yes=yes,
            log=log,
            home=home,
            pin_fd=pin_fd,
        ),
        "approval",
        asks="approve",
        may=check_may_approve,
        act=lambda agreed: approve_requests(
            agreed.bundle,
            agreed.requests,
            situation=agreed.situation,
            home=agreed.home,
            signer=agreed.keys.signer,
            opener=agreed.keys.opener_for(agreed.bundle),
            lifetime=agreed.lifetime,
        ),
    )
    until = {decode_statement(Approval, one.data).predicate.expires_at for one in given}
    screen.say(f"approved until {_words.time(min(until))}")


def deny(
    bundle: BundleArgument,
    requests: RequestsArgument,
    out: OutFolderOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    env: EnvOption = None,
    answers: AnswersOption = None,
    yes: YesOption = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse requests, for the record.  A denial blocks nobody; it is shown to everybody.

    Whoever denies cannot consent to or approve the same request later.  A consent or an approval he
    gave before counts no more where the denial is seen too; so if this home remembers one, or one
    lies in --answers or --out, you are told, and asked, first.
    """
    screen = Screen(as_json=as_json)
    _check_reason(reason)
    check_folder(out)
    asked = read_requests(requests)
    standing = stand(home, env, "officer", more=answers or (), answers=out)
    officer = standing.home.identity().principal
    paths = answer_paths(out, asked, standing, "denial")
    _warn_of_yes(screen, officer, asked, standing, yes=yes)
    with unlocked(standing.home, pin_fd) as keys:
        given = deny_requests(
            Bundle.at(bundle).statement,
            asked,
            reason=reason,
            situation=judged_anew(screen, standing.home, standing.situation),
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
    documents = standing.situation.documents
    if not (answers or documents.consents or documents.approvals or documents.denials):
        screen.say("no answers were looked at: --answers DIR")


def _warn_of_yes(
    screen: Screen,
    officer: str,
    asked: Sequence[Statement[Asking]],
    standing: Standing,
    *,
    yes: bool,
) -> None:
    """Say which of the requests this officer said yes to before, and ask whether he means it."""
    for request in asked:
        before = yes_before(officer, request, standing.situation, standing.home)
        for kind in before:
            did = "approved" if kind is Approval else "consented to"
            screen.say(
                f"you {did} {request.predicate.host}'s request; denied, "
                "that counts no more where both are seen"
            )
        if before:
            what = " and ".join("approval" if k is Approval else "consent" for k in before)
            screen.confirm(f"withdraw your {what}?", yes=yes)


def _check_reason(reason: str) -> None:
    try:
        check_text(reason)
    except Malformed as error:
        raise typer.BadParameter(error.reason, param_hint="--reason") from error
