"""``custody publisher rewrap``: sign what a recovery ceremony made of one's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import (
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
from custody.cli._session import stand, unlocked
from custody.cli._ui import Screen
from custody.formats.policy_text import format_quorum
from custody.formats.recovery import BreakGlass
from custody.ops import rewrap as ops
from custody.ops.bundle import MANIFEST, Bundle
from custody.ops.folders import read_statement_file
from custody.ops.landing import check_absent


def add_rewrap(app: typer.Typer) -> None:
    """Add ``rewrap`` to the publisher's commands."""
    app.command(
        epilog=example(
            "custody publisher rewrap ./bundle ./rewrapped --env ./production \\",
            "    --out ./bundle-again",
        )
    )(rewrap)


def rewrap(
    bundle: BundleArgument,
    made: Annotated[
        Path,
        typer.Argument(help="What custodian break-glass wrote.", metavar="REWRAPPED"),
    ],
    out: OutOption,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle of yours that a recovery sealed anew: same ciphertext, other officers.

    A custodian has stated why, and by which shares. You see it before you sign. Where the policy
    says logged, the log's proof of his statement lies beside it.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    standing = followed(screen, stand(home, env, "publisher", more=[made]), log)
    sealed, new = Bundle.at(bundle), ops.read_rewrapped(made / ops.REWRAPPED)
    broken = read_statement_file(BreakGlass, made / ops.STATEMENT)
    ops.check_rewrapped(sealed.statement, new, broken, standing.situation)
    policy, said = standing.situation.trusted.policy, broken.predicate
    custodian = policy.holder(broken.envelope.signatures[0].keyid)
    screen.say(
        f"custodian {custodian.id if custodian else 'unknown'} broke the glass: {said.reason}"
    )
    for share in said.shares:
        screen.say(f"  by group {share.group + 1}, share {share.member + 1} ({share.holder})")
    screen.say(f"sealed anew to {format_quorum(policy.quorum)}")
    screen.say(f"it replaces manifest {sealed.statement.digest}")
    screen.confirm("sign it?", yes=yes)
    with unlocked(standing.home, pin_fd) as keys:
        situation = judged_anew(screen, standing.home, standing.situation)
        ops.sign_rewrapped(sealed, new, broken, out, situation=situation, signer=keys.signer)
    screen.made(out)
    screen.say("withdraw the old manifest in the next policy: its old officers can still open it")
    offer(screen, policy, log, [(out / MANIFEST).read_bytes()])
