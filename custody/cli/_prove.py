"""The second round for share keys that only decrypt: a custodian's challenge, and its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    example,
    open_home,
)
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.formats.policy import Role
from custody.ops import admit as ops
from custody.ops.landing import check_absent, write_new_file


def add_challenge(app: typer.Typer) -> None:
    """Add ``challenge`` to the custodian's commands."""

    @app.command(
        epilog=example(
            "custody custodian challenge alice.admission.dsse --out alice.challenge.json"
        )
    )
    def challenge(
        admission: Annotated[
            Path, typer.Argument(help="An admission with an RSA share key.", metavar="FILE")
        ],
        out: OutOption,
        home: HomeOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Seal something fresh to a share key that only decrypts: its holder shows that he has it.

        What he answers goes to admit, by --answer.  A new challenge makes an older one worthless.
        """
        screen = Screen(as_json=as_json)
        check_absent(out)
        write_new_file(out, ops.challenge(open_home(home, "custodian"), admission))
        screen.made(out)


def add_prove(app: typer.Typer, role: Role) -> None:
    """Add ``prove`` to the commands of a role that has share keys."""

    @app.command(
        epilog=example(f"custody {role} prove alice.challenge.json --out alice.answer.json")
    )
    def prove(
        challenge: Annotated[
            Path, typer.Argument(help="What a custodian sealed to your key.", metavar="FILE")
        ],
        out: OutOption,
        home: HomeOption = None,
        pin_fd: PinFdOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Answer a custodian's challenge to an RSA share key you offered.

        Only a challenge to an admission that this home made is answered.
        """
        screen = Screen(as_json=as_json)
        check_absent(out)
        where = open_home(home, role)
        with open_token(where.identity().token, pin_fd=pin_fd) as opened:
            write_new_file(out, ops.answer(where, opened, challenge))
        screen.made(out)
