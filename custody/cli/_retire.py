"""``retire``: how enrollers end the enrolment of a host."""

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
    YesOption,
    example,
    open_home,
)
from custody.cli._log import LogOption, offer
from custody.cli._ui import Screen
from custody.cli._vouching import OntoOption, show_signed, signing, situation_of
from custody.encoding import Digest, Record, format_time
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import decode_statement
from custody.formats.retirement import Retirement
from custody.ops import retire as ops
from custody.ops.folders import read_statement_file
from custody.ops.landing import check_absent, write_new_file
from custody.rules.trust import count_signers


class Retired(Record, frozen=True, kw_only=True):
    """What ``retire --json`` shows."""

    file: str
    host: str
    record: Digest
    digest: Digest
    signed: tuple[str, ...]
    missing: int


def add_retire(app: typer.Typer) -> None:
    """Add ``retire`` to the enroller's commands."""
    app.command(
        epilog=example(
            "custody enroller retire production/gpu-7.enrolment.dsse --reason 'sold' \\",
            "    --env ./production --out gpu-7.retirement.dsse",
            "custody enroller retire production/gpu-7.enrolment.dsse \\",
            "    --onto gpu-7.retirement.dsse --env ./production \\",
            "    --out production/gpu-7.retirement.dsse",
        )
    )(retire)


def retire(
    record: Annotated[
        Path,
        typer.Argument(help="The host's enrolment record.", metavar="RECORD", show_default=False),
    ],
    out: OutOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words for people.")] = "",
    onto: OntoOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Retire a host: its record is refused from then on, by everybody who has seen this.

    It needs as many enrollers as the record did. The host may be enrolled again, anew.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    if onto is None and not reason:
        raise typer.BadParameter("a retirement says why", param_hint="--reason")
    where = open_home(home, "enroller")
    ended = read_statement_file(EnrolmentRecord, record)
    first = None if onto is None else read_statement_file(Retirement, onto)
    situation = situation_of(where, env)
    said = ended.predicate
    screen.say(f"host {said.host}, {said.trust_class}, enrolled {format_time(said.enrolled_at)}")
    if first is not None:
        screen.say(f"retired {format_time(first.predicate.retired_at)}: {first.predicate.reason}")
    screen.confirm("retire it for good?", yes=yes)
    with signing(where, pin_fd) as signer:
        situation = judged_anew(screen, where, situation)
        signed = ops.retire(
            ended,
            reason=reason,
            signer=signer,
            situation=situation,
            onto=first,
        )
    write_new_file(out, signed)
    statement = decode_statement(Retirement, signed)
    policy = situation.trusted.policy
    needed = policy.thresholds.enrolment
    count = count_signers(statement.envelope, policy, role="enroller", needed=needed)
    shown = Retired(
        file=str(out),
        host=said.host,
        record=ended.digest,
        digest=statement.digest,
        signed=count.signers,
        missing=count.missing,
    )
    show_signed(screen, shown, out, count)
    offer(screen, situation.trusted.policy, log, [signed])
