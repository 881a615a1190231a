"""``custody custodian recovery wrapping-key``, ``recovery trust-key``, ``backup``, ``restore``."""

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
    moment,
    open_home,
)
from custody.cli._sealed import SealedOption, SealedTokenOption, open_sealed
from custody.cli._session import stand, unlocked
from custody.cli._shares import RecordArgument, RecordOption, WordsFdOption, check_ready
from custody.cli._ui import Screen
from custody.cli._wiring import open_token, pin_reader
from custody.crypto.secret import wipe
from custody.encoding import Digest, Record
from custody.errors import CustodyError
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keybackup import KeyBackup, WrappingKey
from custody.formats.recovery import RecoveryRecord
from custody.keys.wrapapi import WrappedKey, wrapping_of
from custody.ops.authority import authority_certificate
from custody.ops.folders import read_statement_file, reading
from custody.ops.landing import check_new_file, write_new_file
from custody.ops.spoken import spoken
from custody.rules.keybackup import check_backup, check_wrapping

if TYPE_CHECKING:
    from custody.keys.api import Token

WrappingArgument = Annotated[
    Path, typer.Argument(help="The wrapping key (.dsse).", metavar="WRAPPING", show_default=False)
]
KeyTokenOption = Annotated[
    str | None,
    typer.Option("--token", help="The token that keeps the key  [default: yours]", metavar="URI"),
]


class WrappingView(Record, frozen=True, kw_only=True):
    """What ``recovery wrapping-key --json`` shows."""

    file: str
    digest: Digest
    key: Digest


class TrustedView(Record, frozen=True, kw_only=True):
    """What ``recovery trust-key --json`` shows."""

    token: str
    key: Digest
    authorities: bool
    """Whether authorities' keys can leave under it, and not key-encryption keys alone."""


class BackupView(Record, frozen=True, kw_only=True):
    """What ``backup --json`` shows."""

    file: str
    digest: Digest
    role: str
    label: str
    check: Digest


class RestoredView(Record, frozen=True, kw_only=True):
    """What ``restore --json`` shows."""

    uri: str
    role: str
    check: Digest
    signed_by: str


def add_backup(app: typer.Typer, recovery: typer.Typer) -> None:
    """Add the verbs of backups to the custodian's."""
    recovery.command(
        "wrapping-key",
        epilog=example(
            "custody custodian recovery wrapping-key recovery-1.dsse --out wrapping-1.dsse"
        ),
    )(wrapping_key)
    recovery.command(
        "trust-key",
        epilog=example(
            "custody custodian recovery trust-key wrapping-1.dsse --env production \\",
            "    --token pkcs11:token=site?module-name=softhsm2",
        ),
    )(trust_key)
    app.command(
        epilog=example(
            "custody custodian backup wrapping-1.dsse --authority --env production --out ca.dsse"
        )
    )(backup)
    app.command(
        epilog=example(
            "custody custodian restore ca.dsse --record recovery-1.dsse --env production \\",
            "    --token pkcs11:token=new?module-name=softhsm2",
        )
    )(restore)


def wrapping_key(
    record: RecordArgument,
    out: OutOption,
    words_fd: WordsFdOption = None,
    sealed: SealedOption = None,
    by: SealedTokenOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the key that keys leave tokens under: it opens by the shares of a recovery key only.

    Enough holders type their words. Later backups need none of them.
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import backup as ops

    screen = Screen(as_json=as_json)
    check_new_file(out)
    where = open_home(home, "custodian")
    known = read_statement_file(RecoveryRecord, record)
    opened = open_sealed(known, sealed, by)
    with unlocked(where, pin_fd) as keys:
        # A wrong PIN costs nobody his words.
        shares = paper.gather(known, words_fd, opened)
        passphrase = paper.passphrase_of(known, shares, screen.say)
        data = ops.make_wrapping(known, shares, passphrase, signer=keys.signer, now=moment(None))
    write_new_file(out, data)
    made = decode_statement(WrappingKey, data)
    view = WrappingView(file=str(out), digest=made.digest, key=made.predicate.key.key_id)

    def words() -> None:
        screen.show(f"{view.file}: wrapping key {view.key}")
        screen.show("its digest, to be compared where a token is to trust it:")
        screen.speak(view.digest)

    screen.result(view, words)


def trust_key(
    wrapping: WrappingArgument,
    token: KeyTokenOption = None,
    env: EnvOption = None,
    so_pin_fd: Annotated[
        int | None,
        typer.Option("--so-pin-fd", help="Read the SO's PIN from this descriptor.", metavar="N"),
    ] = None,
    home: HomeOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have a token trust a wrapping key: its security officer (SO) types his PIN.

    Recoverable keys of the token can then leave under that key, and under no other.
    """
    from custody.ops import backup as ops

    screen = Screen(as_json=as_json)
    standing = stand(home, env, "custodian")
    said = read_statement_file(WrappingKey, wrapping)
    with reading(wrapping):
        check_wrapping(said, standing.situation)
    where = token or standing.home.identity().token
    screen.say(f"wrapping key {said.predicate.key.key_id}, its statement's digest:")
    for line in spoken(said.digest):
        screen.say(f"  {line}")
    screen.confirm(f"have {where} trust it?", yes=yes)
    asked = pin_reader(so_pin_fd)

    def so_pin(prompt: str, /) -> bytearray:
        given = asked(prompt)
        try:
            check_wrapping(said, judged_anew(screen, standing.home, standing.situation))
        except CustodyError:
            wipe(given)
            raise
        return given

    with open_token(where) as opened:
        # And before: at a token with a pad of its own nobody else asks for the PIN.
        situation = judged_anew(screen, standing.home, standing.situation)
        both = ops.trust_wrapping(opened, said, situation=situation, so_pin=so_pin)
    view = TrustedView(token=where, key=said.predicate.key.key_id, authorities=both)

    def words() -> None:
        screen.show(f"trusted by {view.token}")
        if not view.authorities:
            screen.show(
                "authorities' keys cannot leave it: the token makes no trusted AES keys; when it "
                "is lost, a new authority takes this one's place in the next policy"
            )

    screen.result(view, words)


def backup(
    wrapping: WrappingArgument,
    out: OutOption,
    authority: Annotated[
        bool, typer.Option("--authority", help="Back up the key of your home's authority.")
    ] = False,
    kek: Annotated[
        str | None,
        typer.Option("--kek", help="Back up the KEK with this check value.", metavar="CHECK"),
    ] = None,
    token: KeyTokenOption = None,
    env: EnvOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up a key that lives in a token, wrapped under the recovery key and signed by you.

    Only a key that was made --recoverable can leave. Nobody opens it without enough shares.
    """
    from custody.ops import backup as ops

    screen = Screen(as_json=as_json)
    if authority == (kek is not None):
        raise typer.BadParameter("give one of --authority and --kek")
    check_new_file(out)
    standing = stand(home, env, "custodian")
    said = read_statement_file(WrappingKey, wrapping)

    def take(opened: Token) -> WrappedKey:
        situation = judged_anew(screen, standing.home, standing.situation)
        if kek is not None:
            info = wrapping_of(opened).find_kek(check=kek).info
            return ops.back_up_kek(opened, info, said, situation=situation)
        certificate = authority_certificate(standing.home)
        return ops.back_up_authority(opened, said, certificate=certificate, situation=situation)

    own = standing.home.identity().token
    with reading(wrapping):
        check_wrapping(said, standing.situation)
    wrapped = None
    if token not in (None, own):
        with open_token(token) as opened, opened.session():
            wrapped = take(opened)
    with unlocked(standing.home, pin_fd) as keys:
        situation = judged_anew(screen, standing.home, standing.situation)
        data = ops.state_backup(
            wrapped or take(keys.token), said, situation=situation, signer=keys.signer
        )
    write_new_file(out, data)
    _show_backup(screen, decode_statement(KeyBackup, data), out)


def _show_backup(screen: Screen, made: Statement[KeyBackup], out: Path) -> None:
    said = made.predicate
    view = BackupView(
        file=str(out), digest=made.digest, role=said.role, label=said.label, check=said.check
    )

    def words() -> None:
        screen.show(f"{view.file}: {_KINDS[view.role]} {view.label}")
        screen.show(f"  check value {view.check}")
        screen.show("keep it with the recovery record; prove it: custody custodian drill")

    screen.result(view, words)


_KINDS = {"kek": "key-encryption key", "ca": "authority's key"}


def restore(
    file: Annotated[Path, typer.Argument(help="The backup (.dsse).", metavar="BACKUP")],
    record: RecordOption,
    token: Annotated[
        str, typer.Option("--token", help="The new token to bring it into.", metavar="URI")
    ],
    env: EnvOption = None,
    words_fd: WordsFdOption = None,
    sealed: SealedOption = None,
    by: SealedTokenOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a key from its backup into a new token, by the shares of its recovery key.

    It comes back as it was, or not at all. No key in the token is replaced.
    """
    check_ready()
    from custody.cli import _mnemonics as paper
    from custody.ops import backup as ops

    screen = Screen(as_json=as_json)
    standing = stand(home, env, "custodian")
    made, known = read_backup(file, record)
    with reading(file):
        signer = check_backup(made, known, standing.situation)
    say_backup(screen, made, signer)
    screen.confirm("restore it?", yes=yes)
    by_tokens = open_sealed(known, sealed, by)
    said = made.predicate
    with open_token(token, pin_fd=pin_fd) as opened, opened.session():
        ops.check_restorable(opened, made)
        shares = paper.gather(known, words_fd, by_tokens)
        passphrase = paper.passphrase_of(known, shares, screen.say)
        situation = judged_anew(screen, standing.home, standing.situation)
        uri = ops.restore(opened, made, known, shares, passphrase, situation=situation)
    view = RestoredView(uri=uri, role=said.role, check=said.check, signed_by=signer)

    def words() -> None:
        screen.show(f"{_KINDS[view.role]}: {view.uri}")
        screen.show(f"  check value {view.check}, as it was")
        screen.show(
            "now: have its security officer trust a wrapping key again (recovery trust-key), and "
            "make a new recovery key: the words of this one were typed"
        )

    screen.result(view, words)


def read_backup(file: Path, record: Path) -> tuple[Statement[KeyBackup], Statement[RecoveryRecord]]:
    """Read a backup and the record of its recovery key."""
    return read_statement_file(KeyBackup, file), read_statement_file(RecoveryRecord, record)


def say_backup(screen: Screen, made: Statement[KeyBackup], signer: str) -> None:
    """Say what would come back."""
    said = made.predicate
    screen.say(f"{_KINDS[said.role]} {said.label}, check value {said.check}")
    screen.say(
        f"  left token {said.held_in.label}, serial {said.held_in.serial}; signed by {signer}"
    )
