"""``custody custodian status``: what of the environment ends soon."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    example,
    moment,
    open_home,
    read_env,
)
from custody.cli._ui import EXIT_INCOMPLETE, Screen
from custody.encoding import Moment, Record, format_time
from custody.ops.holdings import read_environment
from custody.rules.expiry import Ending, endings

_SPAN = re.compile(r"(?P<number>[0-9]{1,5})(?P<unit>[hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class EndingView(Record, frozen=True, kw_only=True):
    """One thing that ends; ``at`` null: it is bad already, as ``reason`` says."""

    kind: str
    subject: str
    at: Moment | None
    due: bool
    reason: str
    remedy: str


class StatusView(Record, frozen=True, kw_only=True):
    """What ``status --json`` shows: everything that ends, soonest first."""

    environment: str
    policy_version: int
    at: Moment
    within_seconds: int
    due: int
    endings: tuple[EndingView, ...]


def status(
    env: EnvOption = None,
    within: Annotated[
        str, typer.Option("--within", help="How far ahead to look: 12h, 30d, 8w.", metavar="SPAN")
    ] = "30d",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what ends soon: policy, authorities, revocation lists, certificates, bundles.

    Exit code 0: nothing ends within that time.  4: something does, or has ended.
    """
    screen = Screen(as_json=as_json)
    span = _span(within)
    documents, now = read_env(env), moment(None)
    found = read_environment(documents, pin=open_home(home, "custodian").memory().pin, now=now)
    policy = found.policy
    ends = endings(policy, documents, found.sealings, now=now)
    due = [one for one in ends if one.due(now, span)]
    view = StatusView(
        environment=policy.environment,
        policy_version=policy.version,
        at=now,
        within_seconds=int(span.total_seconds()),
        due=len(due),
        endings=tuple(
            EndingView(
                kind=one.kind,
                subject=one.subject,
                at=one.at,
                due=one in due,
                reason=one.reason,
                remedy=one.remedy,
            )
            for one in ends
        ),
    )

    def words() -> None:
        for one in due:
            screen.show(f"{_when(one, view)}  {one.kind} {one.subject}{_why(one)}")
            screen.show(f"    {one.remedy}")
        rest = [one.at for one in ends if one not in due and one.at is not None]
        if rest:
            next_one = "next after that" if due else "nothing is due; next"
            screen.show(f"{next_one}: {format_time(min(rest))}")

    screen.result(view, words)
    if due:
        raise typer.Exit(EXIT_INCOMPLETE)


status_epilog = example(
    "custody custodian status --env production",
    "custody custodian status --env production --within 8w --json",
)


def _when(one: Ending, view: StatusView) -> str:
    if one.at is None:
        return "not good"
    return f"{'ended' if one.at <= view.at else 'ends'} {one.at:%Y-%m-%d}"


def _why(one: Ending) -> str:
    return f": {one.reason}" if one.reason else ""


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"{text[:20]!r} is no span as 12h, 30d or 8w", param_hint="--within"
        )
    return int(found["number"]) * _UNITS[found["unit"]]
