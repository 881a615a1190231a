"""A host without a TPM: its keys in an HSM, what it asks for by them, and what it opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._anew import judged_anew
from custody.cli._enroll import (
    DisplayOption,
    InvitationOption,
    ItsNameArgument,
    SuiteOption,
    enroll_as,
)
from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    SiteOption,
    TokenOption,
    example,
    open_home,
)
from custody.cli._keystatus import key_place
from custody.cli._log import LogOption, followed, offer
from custody.cli._open import answers_shown, check_not_asked, check_outputs, named_officer
from custody.cli._opening import BaseOption, ReceiptOption, RequestArgument
from custody.cli._session import Standing, site_keys, stand, unlocked
from custody.cli._ui import Screen
from custody.encoding import Record, utc_now
from custody.errors import Refused
from custody.formats.keyrequest import KeyRequest
from custody.formats.policy import Policy
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file
from custody.ops.keyhost import (
    KeyHost,
    OpenedByKey,
    give_up_by_key,
    listed_opener,
    open_by_key,
    request_by_key,
)
from custody.ops.keys import ShareOpener
from custody.ops.landing import check_new_file, write_new_file
from custody.rules.keyrequest import WARNING


class OpenedView(Record, frozen=True):
    """What ``open-by-key --json`` shows."""

    target: str
    name: str
    version: str
    files: int
    officers: tuple[str, ...]
    bad_shares: tuple[str, ...]
    receipt: str
    burned: bool


def add_keyhost(app: typer.Typer) -> None:
    """Add the verbs of hosts without a TPM."""
    app.command(
        epilog=example(
            "custody host admit mainframe --token pkcs11:token=mainframe \\",
            "    --invitation invitation.json --out mainframe.admission.dsse",
        )
    )(admit)
    app.command(
        name="request-by-key",
        epilog=example(
            "custody host request-by-key ./bundle --env ./production --out request.dsse"
        ),
    )(request_by_hsm)
    app.command(
        name="open-by-key",
        epilog=example(
            "custody host open-by-key ./bundle request.dsse --answers ./answers \\",
            "    --env ./production --out ./model --receipt receipt.dsse",
        ),
    )(open_by_hsm)
    app.command(
        name="end-by-key",
        epilog=example(
            "custody host end-by-key request.dsse --env ./production --out receipt.dsse"
        ),
    )(end_by_hsm)


def admit(
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
    """Make the keys of a host without a TPM in its HSM, and ask that the policy list it.

    The policy must take hosts without a TPM: the trust class hsm-key.  Nothing shows in which state
    such a host runs, nor that it opened once; officers answer it in two rounds.
    """
    enroll_as(
        "host",
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


def request_by_hsm(
    bundle: BundleArgument,
    out: OutOption,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a bundle by a key in an HSM, on a host without a TPM."""
    screen = Screen(as_json=as_json)
    check_not_asked(out, bundle)
    check_new_file(out)
    standing = followed(screen, stand(home, env, "host"), log)
    with key_host(standing, pin_fd) as host:
        situation = judged_anew(screen, standing.home, standing.situation)
        made = request_by_key(Bundle.at(bundle).statement, situation=situation, host=host)
    write_new_file(out, made.data)
    screen.made(out)
    screen.say(f"{WARNING}: officers consent first, then approve")
    offer(screen, standing.situation.trusted.policy, log, [made.data])


def open_by_hsm(
    bundle: BundleArgument,
    request: RequestArgument,
    out: OutOption,
    receipt: ReceiptOption = None,
    answers: AnswersOption = None,
    base: BaseOption = None,
    site: SiteOption = None,
    pin_fd: PinFdOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a released bundle by a key in an HSM, and sign a receipt.

    Nothing appears under its name before all of the model has verified.  There is no burn: the key
    lives on.
    """
    screen = Screen(as_json=as_json)
    asked = read_statement_file(KeyRequest, request)
    # Before its outputs, for one of a run that died may be there; and before any PIN.
    key_place(open_home(home, "host")).check_not_ended(asked.digest, out)
    check_outputs(out, receipt)
    standing = stand(home, env, "host", more=answers or (), requests=[asked])
    standing = followed(screen, standing, log)
    sealed = Bundle.at(bundle)
    with (
        key_hosts_site(sealed, site, standing, pin_fd) as openers,
        key_host(standing, pin_fd, openers) as host,
    ):
        situation = judged_anew(screen, standing.home, standing.situation)
        with (
            answers_shown(screen, sealed, asked, situation),
            screen.resumable(lambda: host.place.unfinished(asked.digest) == out.absolute()),
            screen.progress() as progress,
        ):
            opened = open_by_key(
                sealed,
                asked,
                out,
                situation=situation,
                host=host,
                base=base,
                progress=progress,
            )
    policy = standing.situation.trusted.policy
    screen.result(_view(out, opened, policy), lambda: _show(screen, out, opened, policy))
    if receipt is not None:
        write_new_file(receipt, opened.receipt_data)
    offer(screen, policy, log, [opened.receipt_data])


def end_by_hsm(
    request: RequestArgument,
    out: OutOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "given up",
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign that a request is not to be opened, and open it no more.  Nothing proves it."""
    screen = Screen(as_json=as_json)
    check_new_file(out)
    asked = read_statement_file(KeyRequest, request)
    standing = stand(home, env, "host", requests=[asked])
    with key_host(standing, pin_fd) as host:
        situation = judged_anew(screen, standing.home, standing.situation)
        data = give_up_by_key(asked, situation=situation, host=host, reason=reason)
    write_new_file(out, data)
    screen.made(out)
    offer(screen, standing.situation.trusted.policy, log, [data])


@contextmanager
def key_hosts_site(
    bundle: Bundle, site: Path | None, standing: Standing, pin_fd: int | None
) -> Iterator[tuple[ShareOpener, ...]]:
    """Have the keys of the site that was named at hand; this home's own are the host's."""
    if site is None:
        yield ()
        return
    with site_keys(bundle, site, standing.home, pin_fd) as openers:
        yield openers


@contextmanager
def key_host(
    standing: Standing, pin_fd: int | None, site: tuple[ShareOpener, ...] = ()
) -> Iterator[KeyHost]:
    """Log in to the host's HSM for the block."""
    role = standing.home.identity().role
    if role != "host":
        raise Refused(f"this home is of a {role}, and no host's", check="host.home", where="home")
    with unlocked(standing.home, pin_fd) as keys:
        opener = listed_opener(keys.openers, standing.situation)
        yield KeyHost(keys.signer, opener, key_place(standing.home), utc_now, site)


def _view(out: Path, opened: OpenedByKey, policy: Policy) -> OpenedView:
    return OpenedView(
        target=str(out),
        name=opened.contents.name,
        version=opened.contents.version,
        files=len(opened.contents.files),
        officers=opened.officers,
        bad_shares=tuple(named_officer(bad, policy) for bad in opened.bad_shares),
        receipt=opened.receipt.digest,
        burned=False,
    )


def _show(screen: Screen, out: Path, opened: OpenedByKey, policy: Policy) -> None:
    contents = opened.contents
    for bad in opened.bad_shares:
        screen.say(
            f"bad share from {named_officer(bad, policy)} (leaf {bad.leaf}): left out; the receipt "
            "names him"
        )
    screen.show(
        f"opened   {_words.plain(contents.name)}, version {_words.plain(contents.version)}: "
        f"{_words.count(len(contents.files), 'file')}, into {out}"
    )
    screen.show(f"approved {', '.join(opened.officers)}")
    screen.show(f"receipt  {opened.receipt.digest}")
    screen.show(f"burn     none: {WARNING}")
