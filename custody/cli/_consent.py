"""``consent``: the first of two rounds, to requests of hosts without a TPM."""

from __future__ import annotations

from datetime import datetime

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
from custody.cli._review import (
    HoursOption,
    PreviousOption,
    RequestsArgument,
    answer_lifetime,
    answer_paths,
    stop_if_unsound,
    write_answers,
)
from custody.cli._session import read_requests, stand, unlocked
from custody.cli._ui import Screen
from custody.formats.envelope import decode_statement
from custody.formats.keyrequest import Consent
from custody.ops.approve import review_requests
from custody.ops.bundle import Bundle
from custody.ops.consent import consent_to
from custody.ops.landing import check_folder


def add_consent(app: typer.Typer) -> None:
    """Add ``consent`` to the officer's verbs."""
    app.command(
        epilog=example(
            "custody officer consent ./bundle request.dsse --env ./production --out ./answers"
        )
    )(consent)


def consent(
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
    """Consent to requests of hosts without a TPM, before anybody opens a share for them.

    Review comes first, as before an approval.  When a quorum has consented to a request, its
    officers approve it: custody officer approve, with the consents among --answers.
    """
    screen = Screen(as_json=as_json)
    check_folder(out)
    opened, asked = Bundle.at(bundle), read_requests(requests)
    standing = stand(home, env, "officer", more=answers or (), answers=out, requests=asked)
    standing = followed(screen, standing, log)
    lifetime = answer_lifetime(
        hours, longest=standing.situation.trusted.policy.limits.approval_seconds
    )
    paths = answer_paths(out, asked, standing.home.identity().principal, "consent")
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
        screen.confirm(f"consent to {_words.count(len(asked), 'request')}?", yes=yes)
        given = consent_to(
            opened.statement,
            asked,
            situation=standing.situation,
            home=standing.home,
            signer=keys.signer,
            lifetime=lifetime,
        )
    write_answers(screen, given, paths)
    offer(screen, standing.situation.trusted.policy, log, [one.data for one in given])
    ends: list[datetime] = [
        decode_statement(Consent, one.data).predicate.expires_at for one in given
    ]
    screen.say(f"consented until {_words.time(min(ends))}")
