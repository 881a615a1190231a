"""``consent``: the first of two rounds, to requests of hosts without a TPM."""

from __future__ import annotations

import typer

from custody.cli import _words
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
from custody.cli._log import LogOption
from custody.cli._reviewed import (
    Given,
    HoursOption,
    PreviousOption,
    RequestsArgument,
    answer_reviewed,
)
from custody.cli._ui import Screen
from custody.formats.envelope import decode_statement
from custody.formats.keyrequest import Consent
from custody.ops.consent import check_may_consent, consent_to


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
    """Consent to requests of hosts without a TPM, before anybody opens a share for them.

    Review comes first, as before an approval.  When a quorum has consented to a request, its
    officers approve it: custody officer approve, with the consents among --answers.
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
        "consent",
        asks="consent to",
        may=check_may_consent,
        act=lambda agreed: consent_to(
            agreed.bundle.statement,
            agreed.requests,
            situation=agreed.situation,
            home=agreed.home,
            signer=agreed.keys.signer,
            lifetime=agreed.lifetime,
        ),
    )
    until = {decode_statement(Consent, one.data).predicate.expires_at for one in given}
    screen.say(f"consented until {_words.time(min(until))}")
