"""``custody log countersign``: what a log does for a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    example,
    moment,
    open_home,
    read_env,
)
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.encoding import Record
from custody.formats.case import documents_of, merge
from custody.formats.logpolicy import NONE, LogPolicy
from custody.log.writer import Cosigning
from custody.ops import logs
from custody.ops.countersign import Countersigned
from custody.ops.countersign import countersign as countersign_request
from custody.ops.folders import read_request_file
from custody.ops.heads import follow_in
from custody.ops.landing import check_new_file, write_new_file
from custody.ops.trust import current
from custody.rules.situation import Situation
from custody.transports.api import open_store

_ROLE = "log"


class EntryView(Record, frozen=True, kw_only=True):
    """One statement of a request, and where it is in the log."""

    index: int
    kind: str
    digest: str


class CountersignedView(Record, frozen=True, kw_only=True):
    """What ``countersign --json`` shows."""

    request: str
    entries: tuple[EntryView, ...]
    file: str


def add_countersign(app: typer.Typer) -> None:
    """Add it to the log's verbs."""
    app.command(
        epilog=example(
            "custody log countersign ./log request.dsse ./case --env ./production \\",
            "    --out request.logged.dsse",
        )
    )(countersign)


def countersign(
    log: Annotated[
        str,
        typer.Argument(help="Where the log lies: a directory, s3://, gs:// or az://."),
    ],
    request: Annotated[Path, typer.Argument(help="The host's request.dsse.", metavar="REQUEST")],
    out: OutOption,
    case: Annotated[
        list[Path] | None,
        typer.Argument(help="Manifest and answers.", metavar="CASE", show_default=False),
    ] = None,
    env: EnvOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log a request and its answers, and only then sign its terms, without which it cannot open.

    Everything a host judges is judged first; the witnesses that the policy demands must cosign.
    """
    screen = Screen(as_json=as_json)
    check_new_file(out)
    where, store = open_home(home, _ROLE), open_store(log)
    asked = read_request_file(request)
    documents = merge(read_env(env, *(case or ())), documents_of([asked]))
    situation = current(where, documents=documents, now=moment(None))
    situation = follow_in(where, situation, store)
    token = logs.log_identity(where).token
    with open_token(token, pin_fd=pin_fd) as opened, opened.session():
        situation = judged_anew(screen, where, situation)
        made = countersign_request(
            asked,
            home=where,
            situation=situation,
            store=store,
            writer=logs.open_writer(
                where, store, opened, now=situation.now, cosigning=_cosigning(situation)
            ),
            signer=logs.log_signer(where, opened),
        )
    write_new_file(out, made.data)
    _show(screen, made, out)


def _cosigning(situation: Situation) -> Cosigning | None:
    """Ask the witnesses of the policy in force, if it has any."""
    policy: LogPolicy | None = situation.trusted.policy.log_policy()
    if policy is None or policy.quorum == NONE:
        return None
    from custody.transports.web import post

    return logs.AskAll(policy, post)


def _show(screen: Screen, made: Countersigned, out: Path) -> None:
    view = CountersignedView(
        request=made.said.request,
        entries=tuple(
            EntryView(index=entry.index, kind=entry.kind, digest=entry.statement)
            for entry in made.said.entries
        ),
        file=str(out),
    )
    rows = [(str(row.index), row.kind, row.digest) for row in view.entries]

    def words() -> None:
        screen.table(("index", "kind", "digest"), rows)
        screen.show(str(out))

    screen.result(view, words)
