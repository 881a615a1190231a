"""``authorise``: how an enroller lets kept keys open in a boot state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
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
from custody.cli._vouching import signing, situation_of
from custody.encoding import Digest, Record
from custody.formats.authorisation import Authorisation
from custody.formats.envelope import decode_statement
from custody.formats.goldenset import GoldenSet
from custody.ops.folders import read_statement_file
from custody.ops.golden import authorise_state
from custody.ops.landing import check_absent, write_new_file


class Authorised(Record, frozen=True, kw_only=True):
    """What ``authorise --json`` shows."""

    file: str
    name: str
    epoch: int
    golden: Digest
    digest: Digest
    needed: int


def add_authorise(app: typer.Typer) -> None:
    """Add ``authorise`` to the enroller's commands."""
    app.command(
        epilog=example(
            "custody enroller authorise production/kernel-6.12.9.dsse --env ./production \\",
            "    --out production/erik-kernel-6.12.9.authorisation.dsse",
        )
    )(authorise)


def authorise(
    golden: Annotated[
        Path,
        typer.Argument(help="A golden set that you signed.", metavar="GOLDEN", show_default=False),
    ],
    out: OutOption,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let keys that hosts keep (mode sealed-updatable) open in a boot state you vouched for.

    It counts with as many enrollers as a golden set needs. It ends when an epoch after it is
    signed whose --oldest leaves it out.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, "enroller")
    statement = read_statement_file(GoldenSet, golden)
    situation = situation_of(where, env)
    said = statement.predicate
    screen.say(f"boot state {_words.plain(said.name)}, epoch {said.epoch}")
    screen.confirm("let keys that hosts keep open in it?", yes=yes)
    with signing(where, pin_fd) as signer:
        situation = judged_anew(screen, where, situation)
        signed = authorise_state(statement, signer=signer, situation=situation)
    write_new_file(out, signed)
    shown = Authorised(
        file=str(out),
        name=said.name,
        epoch=said.epoch,
        golden=statement.digest,
        digest=decode_statement(Authorisation, signed).digest,
        needed=situation.trusted.policy.thresholds.golden,
    )
    screen.result(
        shown,
        lambda: screen.show(f"{out}\none of the {shown.needed} enrollers that kept keys need"),
    )
    offer(screen, situation.trusted.policy, log, [signed])
