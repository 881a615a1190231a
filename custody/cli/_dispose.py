"""``retire``: destroy one's copies of a bundle that had its time, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import EnvOption, HomeOption, JsonOption, OutOption, PinFdOption, YesOption
from custody.cli._home import example as example_of
from custody.cli._log import LogOption, offer
from custody.cli._session import stand, unlocked
from custody.cli._ui import Screen
from custody.cli._words import size


def add_retire(app: typer.Typer) -> None:
    """Add ``retire`` to the publisher's commands."""
    app.command(
        epilog=example_of(
            "custody publisher retire ./bundle-1.1 --env ./production \\",
            "    --out bundle-1.1.disposal.dsse",
        )
    )(retire)


def retire(
    bundle: Annotated[Path, typer.Argument(help="The superseded bundle.", metavar="BUNDLE")],
    out: OutOption,
    env: EnvOption = None,
    log: LogOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Destroy your copy of a superseded bundle and what its sealing left; write a statement of it.

    Superseded is what another manifest in --env replaces, what the policy withdrew, and what may be
    released no longer. Copies on hosts and in stores are not yours to destroy.
    """
    from custody.ops.dispose import check_doomed, dispose
    from custody.ops.landing import check_absent
    from custody.ops.resume import SealKeeper

    screen = Screen(as_json=as_json)
    check_absent(out)
    standing = stand(home, env, "publisher")
    records = standing.home.folder("sealed")
    with unlocked(standing.home, pin_fd) as keys:
        shares = standing.home.identity().shares
        keeper = (
            SealKeeper(standing.home.folder("unfinished"), keys.openers[0], shares[0].suite)
            if shares
            else None
        )
        doomed = check_doomed(bundle, situation=standing.situation, records=records, keeper=keeper)
        what = f"{doomed.superseded.why}: destroy {bundle}, {size(doomed.size_bytes)}?"
        screen.confirm(what, yes=yes)
        situation = judged_anew(screen, standing.home, standing.situation)
        done = dispose(
            doomed,
            out,
            situation=situation,
            signer=keys.signer,
            keeper=keeper,
            now=situation.now,
        )
    screen.result(
        {"manifest": done.manifest, "file": str(out), "destroyedBytes": done.said.destroyed_bytes},
        lambda: screen.show(
            f"destroyed {bundle}, {size(done.said.destroyed_bytes)}; {out} says so"
        ),
    )
    offer(screen, standing.situation.trusted.policy, log, [done.data])
