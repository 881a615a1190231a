"""``custody custodian check-share``, ``break-glass``, ``drill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
)
from custody.cli._log import LogOption, offer
from custody.cli._recovery_make import recovery_app
from custody.cli._sealed import (
    SealedOption,
    SealedTokenOption,
    open_sealed,
)
from custody.cli._session import Standing, stand, unlocked
from custody.cli._shares import RecordArgument, RecordOption, WordsFdOption, check_ready
from custody.cli._ui import Screen
from custody.cli._wiring import scratch_token
from custody.encoding import Digest, Record, key_id
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keybackup import KeyBackup
from custody.formats.policy_text import format_quorum
from custody.formats.recovery import BreakGlass, RecoveryRecord
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file, reading
from custody.ops.landing import check_new_file, new_directory, write_new_file
from custody.ops.rewrap import REWRAPPED, STATEMENT

if TYPE_CHECKING:  # SLIP-0039 is an extra: who reads help needs none of it
    from custody.ops.break_glass import Broken


class ShareView(Record, frozen=True, kw_only=True):
    """What ``check-share --json`` shows: no word of the share."""

    group: int
    share: int
    holder: str
    record: Digest


class BrokenView(Record, frozen=True, kw_only=True):
    """What ``break-glass --json`` shows."""

    manifest: Digest
    statement: Digest
    shares: tuple[str, ...]
    files: tuple[str, ...]


def add_recovery(app: typer.Typer) -> None:
    """Add the verbs of recovery to the custodian's."""
    app.add_typer(recovery_app, name="recovery")
    app.command(
        "check-share", epilog=example("custody custodian check-share production/recovery-1.dsse")
    )(check_share)
    app.command(
        "break-glass",
        epilog=example(
            "custody custodian break-glass ./bundle --record recovery-1.dsse \\",
            "    --env ./production --reason 'officers lost with the office' --out ./rewrapped",
        ),
    )(break_glass)
    app.command(
        epilog=example("custody custodian drill recovery-1.dsse ./bundle --env ./production")
    )(drill)


def check_share(
    record: RecordArgument,
    words_fd: WordsFdOption = None,
    sealed: SealedOption = None,
    by: SealedTokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check your share by yourself: every word, and that it is the one you were handed.

    Nothing is sent or kept. A wrong word is named by its position.
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import recovery as ops

    screen = Screen(as_json=as_json)
    statement = read_statement_file(RecoveryRecord, record)

    opened = open_sealed(statement, sealed, by)
    if len(opened) > 1:
        raise typer.BadParameter("one share is checked at a time", param_hint="--sealed")
    text = opened[0] if opened else paper.one_share(statement, words_fd)
    share, mnemonic = ops.check_share(statement, text)
    view = ShareView(
        group=mnemonic.group + 1,
        share=mnemonic.member + 1,
        holder=share.holder,
        record=statement.digest,
    )
    screen.result(
        view,
        lambda: screen.show(
            f"good: group {view.group}, share {view.share}, handed to {view.holder}"
        ),
    )


def break_glass(
    bundle: Annotated[
        Path, typer.Argument(help="The bundle, or a folder with its manifest.", metavar="BUNDLE")
    ],
    record: RecordOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words; it is signed.")],
    out: OutOption,
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            help="Whose HSM it takes from now on; needed where the policy has several sites.",
            metavar="NAME",
        ),
    ] = None,
    env: EnvOption = None,
    words_fd: WordsFdOption = None,
    sealed_shares: SealedOption = None,
    by: SealedTokenOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Seal a bundle anew to the officers in force, by the shares of its recovery key.

    Works when every officer's token is lost. Neither the content key nor any plaintext leaves the
    program. The publisher signs what it makes: custody publisher rewrap.
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import break_glass as glass

    screen = Screen(as_json=as_json)
    check_new_file(out)
    standing = stand(home, env, "custodian")
    sealed = Bundle.at(bundle)
    known = read_statement_file(RecoveryRecord, record)
    with reading(bundle):
        glass.check_breakable(sealed.statement, known, standing.situation, site=site)
    own = key_id(standing.home.identity().signing_spki)
    glass.check_breaker(own, reason, standing.situation)
    _warn(screen, sealed, standing, reason)
    screen.confirm("break the glass?", yes=yes)
    opened = open_sealed(known, sealed_shares, by)
    with unlocked(standing.home, pin_fd) as keys:
        # A wrong PIN costs nobody his words.
        shares = paper.gather(known, words_fd, opened)
        passphrase = paper.passphrase_of(known, shares, screen.say)
        done = glass.break_glass(
            sealed.statement,
            shares,
            passphrase,
            record=known,
            reason=reason,
            situation=judged_anew(screen, standing.home, standing.situation),
            signer=keys.signer,
            token_random=keys.token.random,
            site=site,
        )
    with new_directory(out, mode=0o755) as folder:
        write_new_file(folder / REWRAPPED, done.rewrapped)
        write_new_file(folder / STATEMENT, done.statement)
    _show_broken(screen, sealed, done, out)
    offer(screen, standing.situation.trusted.policy, log, [done.statement])


def _warn(screen: Screen, sealed: Bundle, standing: Standing, reason: str) -> None:
    policy = standing.situation.trusted.policy
    screen.say(f"BREAKING THE GLASS of {policy.environment}: manifest {sealed.statement.digest}")
    screen.say(f"  reason: {reason}")
    screen.say(
        f"  it is sealed anew to {format_quorum(policy.quorum)}, policy version {policy.version}"
    )
    screen.say("  its old officers, together, can open the old manifest until it is withdrawn")


def _show_broken(screen: Screen, sealed: Bundle, done: Broken, out: Path) -> None:
    said = decode_statement(BreakGlass, done.statement).predicate
    view = BrokenView(
        manifest=sealed.statement.digest,
        statement=done.digest,
        shares=tuple(
            f"group {share.group + 1}, share {share.member + 1} ({share.holder})"
            for share in said.shares
        ),
        files=(str(out / REWRAPPED), str(out / STATEMENT)),
    )

    def words() -> None:
        for share in view.shares:
            screen.show(f"used {share}")
        for file in view.files:
            screen.show(file)
        screen.show("its publisher signs: custody publisher rewrap")
        screen.show("then: a new recovery key, and the old manifest into withdrawn")

    screen.result(view, words)


def drill(
    record: RecordArgument,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Bundles that it must open.", metavar="BUNDLE", show_default=False),
    ] = None,
    backups: Annotated[
        list[Path] | None,
        typer.Option("--backup", help="A key that must come back.", metavar="FILE"),
    ] = None,
    env: EnvOption = None,
    words_fd: WordsFdOption = None,
    sealed_shares: SealedOption = None,
    by: SealedTokenOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do a whole recovery and keep nothing of it: say what would have failed.

    What files alone say fails is said before anybody types a word. Keys come back into a token of
    SoftHSM that is made for it and thrown away; no other token is used. The seed, keys and new
    envelopes are forgotten; nothing is signed.
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import drill as ops

    screen = Screen(as_json=as_json)
    standing = stand(home, env, "custodian")
    known: Statement[RecoveryRecord] = read_statement_file(RecoveryRecord, record)
    sealed = [Bundle.at(path).statement for path in bundles or ()]
    held = [read_statement_file(KeyBackup, path) for path in backups or ()]
    failing = ops.foresee(
        known, sealed, situation=standing.situation, backups=held, new_token=scratch_token
    )
    if failing:
        screen.result(failing, lambda: screen.verdicts(failing))
        screen.say("nobody was asked for words: mend this first, or drill without it")
        raise typer.Exit(1)
    shares = paper.gather(known, words_fd, open_sealed(known, sealed_shares, by))
    passphrase = paper.passphrase_of(known, shares, screen.say)
    verdicts = ops.drill(
        known,
        shares,
        passphrase,
        sealed,
        situation=standing.situation,
        backups=held,
        new_token=scratch_token,
    )
    screen.result(verdicts, lambda: screen.verdicts(verdicts))
    if any(verdict.outcome == "fail" for verdict in verdicts):
        raise typer.Exit(1)
