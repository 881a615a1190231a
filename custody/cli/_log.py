"""What commands do with the log that their policy names: follow it, and offer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._ui import Screen
from custody.errors import CustodyError, Unavailable

if TYPE_CHECKING:  # what is not logged needs none of this
    from custody.cli._session import Standing
    from custody.formats.policy import Policy

LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        envvar="CUSTODY_LOG",
        help="Where the policy's log lies: a directory, s3://, gs://, az:// or https://"
        "  [default: the address in the policy]",
        metavar="LOG",
    ),
]


def followed(screen: Screen, standing: Standing, log: str | None) -> Standing:
    """Follow the log that the policy names, if it names one, so that its heads can be judged.

    Only a place that was named must answer: where the policy's own address does not, what is at
    hand decides.
    """
    where = log_of(standing.situation.trusted.policy, log)
    if where is None:
        return standing
    from custody.ops.heads import follow_in
    from custody.transports.api import open_source

    try:
        situation = follow_in(standing.home, standing.situation, open_source(where))
    except Unavailable as error:
        if log is not None:
            raise
        screen.say(f"the log is not asked: {error.reason} ({where})")
        return standing
    return replace(standing, situation=situation)


def log_of(policy: Policy, log: str | None) -> str | None:
    """Return where the policy's log lies: where one said, or by its own address; None: no log."""
    found = policy.log_policy()
    return None if found is None else log or found.logs[0].url


def offer(
    screen: Screen, policy: Policy | None, log: str | None, statements: Sequence[bytes]
) -> None:
    """Offer a log what was just made: the one at ``log``, or where the policy's lies.

    That it cannot be reached is no loss: whoever has the file can log it later.
    """
    named = None if policy is None else policy.log_policy()
    if named is None and log is None:
        return
    where = log or (named.logs[0].url if named else None)
    owed = "it can be logged later: custody log append LOG FILE"
    if where is None:
        screen.say(f"the policy says logged: {owed}")
        return
    from custody.formats.envelope import decode_envelope
    from custody.formats.logentry import entry_of
    from custody.transports.api import offer_entries

    entries = [entry_of(decode_envelope(data)).encode() for data in statements]
    try:
        offer_entries(where, entries)
    except CustodyError as error:
        screen.say(f"not offered to the log: {error.reason} ({where}); {owed}")
    else:
        screen.say(f"offered to the log: {where}")
