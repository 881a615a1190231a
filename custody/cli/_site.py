"""``site``: the keys of a place's HSM, without which nothing sealed for that place opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custody.cli._enroll import (
    DisplayOption,
    InvitationOption,
    ItsNameArgument,
    SuiteOption,
    enroll_as,
)
from custody.cli._home import HomeOption, JsonOption, OutOption, PinFdOption, TokenOption, example
from custody.cli._log import LogOption

if TYPE_CHECKING:
    import typer


def add_site(app: typer.Typer) -> None:
    """Add ``site`` to the host's verbs."""
    app.command(
        epilog=example(
            "custody host site fra1 --token pkcs11:token=fra1 --home ./site \\",
            "    --invitation invitation.json --out fra1.admission.dsse",
        )
    )(site)


def site(
    name: ItsNameArgument,
    token: TokenOption,
    invitation: InvitationOption,
    out: OutOption,
    suite: SuiteOption = None,
    display: DisplayOption = "",
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a site's keys in its HSM and ask that they be listed in the policy.

    From then on what is sealed for that environment opens only where this HSM answers.  Every host
    of the site that opens needs a copy of --home, and the HSM's PIN: a key of suite MLKEM1024_P384
    is half in the HSM and half in the home.  One of an HSM that only decrypts (RSA) is proven in a
    second round: custody custodian challenge, custody host prove.
    """
    enroll_as(
        "site",
        suite or "strongest",
        name=name,
        token=token,
        invitation=invitation,
        out=out,
        display=display,
        log=log,
        home_path=home,
        pin_fd=pin_fd,
        as_json=as_json,
    )
