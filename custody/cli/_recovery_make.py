"""``custody custodian recovery make``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    YesOption,
    example,
    moment,
    open_home,
)
from custody.cli._later import Group
from custody.cli._sealed import SealToOption, read_recipients
from custody.cli._session import unlocked
from custody.cli._shares import check_ready
from custody.cli._ui import Screen
from custody.encoding import Digest, Record
from custody.formats.policy import HpkeSuite
from custody.formats.policy_text import format_quorum, parse_quorum
from custody.ops.landing import check_new_file, new_directory, write_new_file

if TYPE_CHECKING:  # SLIP-0039 is an extra: who reads help needs none of it
    from collections.abc import Mapping

    from custody.formats.policy import ShareKey
    from custody.ops.recovery import MadeRecovery

recovery_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make the recovery key of an environment.",
    epilog=example(
        "custody custodian recovery make production --among '2 of (ida, ivan, iris)' \\",
        "    --out recovery-1.dsse",
    ),
)


class MadeView(Record, frozen=True, kw_only=True):
    """What ``recovery make --json`` shows."""

    file: str
    digest: Digest
    key: Digest
    set_id: int
    among: str


@recovery_app.callback()
def _recovery() -> None:
    pass


@recovery_app.command(
    epilog=example(
        "custody custodian recovery make production --among '2 of (ida, ivan, iris)' \\",
        "    --out recovery-1.dsse",
    )
)
def make(
    environment: Annotated[str, typer.Argument(help="Its name, as production.")],
    among: Annotated[
        str,
        typer.Option("--among", help="Who holds shares, as in a policy's quorum.", metavar="TREE"),
    ],
    out: OutOption,
    suite: Annotated[
        HpkeSuite, typer.Option("--suite", help="What content keys are sealed to it by.")
    ] = "MLKEM1024_P384",
    epoch: Annotated[int, typer.Option("--epoch", help="1, then one more each time.", min=1)] = 1,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase besides the shares.")
    ] = False,
    seal_to: SealToOption = None,
    sealed_out: Annotated[
        Path | None,
        typer.Option("--sealed-out", help="A new folder for sealed shares.", metavar="DIR"),
    ] = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a recovery key, show each person his words, and state who holds what.

    The words are on no disk and shown once; with --seal-to they are sealed to their holder's token
    and shown to nobody. Name the record in the next policy's draft:
    recovery = "recovery-1.dsse".
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import recovery as ops

    screen = Screen(as_json=as_json)
    check_new_file(out)
    if (seal_to is None) != (sealed_out is None):
        raise typer.BadParameter("give --seal-to and --sealed-out together")
    if sealed_out is not None:
        check_new_file(sealed_out)
    tree = parse_quorum(among)
    ops.check_splits(tree)
    where = open_home(home, "custodian")
    recipients = read_recipients(where, seal_to)
    screen.say(f"shares: {format_quorum(tree)}; everybody who holds one must be here")
    screen.confirm("make a recovery key?", yes=yes)
    order = ops.RecoveryOrder(
        environment=environment,
        epoch=epoch,
        suite=suite,
        among=tree,
        passphrase=paper.ask_passphrase(twice=True) if passphrase else b"",
    )
    with unlocked(where, pin_fd) as keys:
        made = ops.make_recovery(
            order, signer=keys.signer, token_random=keys.token.random, now=moment(None)
        )
    # The record comes last: one that exists is of shares that everybody has.
    _give_out(made, recipients, sealed_out)
    write_new_file(out, made.statement)
    _show_made(screen, made, out)


def _show_made(screen: Screen, made: MadeRecovery, out: Path) -> None:
    record = made.record
    view = MadeView(
        file=str(out),
        digest=record.digest,
        key=record.predicate.key_id,
        set_id=record.predicate.set_id,
        among=format_quorum(record.predicate.among),
    )

    def words() -> None:
        screen.show(f"{view.file}: recovery key {view.key}, set {view.set_id}")
        screen.show(f"  {len(made.shares)} shares, {view.among}")
        screen.show("its digest, for everybody to write on his paper:")
        screen.speak(view.digest)

    screen.result(view, words)


def _give_out(
    made: MadeRecovery, recipients: Mapping[str, ShareKey], sealed_out: Path | None
) -> None:
    """Seal the shares of those who have a key for it; show everybody else his words."""
    from custody.cli import _mnemonics as paper
    from custody.ops.sealed_share import seal_shares

    sealed, written = seal_shares(made, recipients)
    if written:
        paper.hand_out(written)
    if sealed_out is not None:
        with new_directory(sealed_out, mode=0o755) as folder:
            for each in sealed:
                write_new_file(folder / f"{each.holder}.share.json", each.data)
