"""``enroll``: how a person's keys are made in his own token and offered to a custodian."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    TokenOption,
    example,
    open_home,
)
from custody.cli._log import LogOption, offer
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.crypto.keyslots import is_oaep
from custody.encoding import Digest, KeyId, Record, key_id
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement
from custody.formats.policy import Role, SuiteName
from custody.formats.state import Identity, ShareIdentity
from custody.ops import admit as ops
from custody.ops.landing import check_absent, write_new_file
from custody.ops.pem import read_certificates

_SHARING: tuple[Role, ...] = ("officer", "auditor")


class Enrolled(Record, frozen=True, kw_only=True):
    """What ``enroll --json`` shows."""

    principal: str
    role: Role
    admission: str
    digest: Digest
    """To be compared with the custodian by voice: admission.md, "Verifying", step 9."""
    signing_key: KeyId
    share_keys: tuple[KeyId, ...]


def add_enroll(app: typer.Typer, role: Role) -> None:
    """Add ``enroll`` to a role's commands; officers and auditors also get a share key."""
    lines = (
        f"custody {role} enroll alice --token pkcs11:token=alice \\",
        "    --invitation invitation.json --out alice.admission.dsse",
    )
    if role in _SHARING:
        _add_sharing(app, role, example(*lines))
    elif role == "custodian":
        _add_keeping(app, role, example(*lines))
    else:
        _add_signing(app, role, example(*lines))


NameArgument = Annotated[str, typer.Argument(help="Your name in the policy.", show_default=False)]
ItsNameArgument = Annotated[
    str, typer.Argument(help="Its name in the policy.", metavar="NAME", show_default=False)
]
InvitationOption = Annotated[
    Path, typer.Option("--invitation", help="A custodian's invitation.", metavar="FILE")
]
SuiteOption = Annotated[
    SuiteName | None,
    typer.Option(
        "--suite",
        help="What shares are sealed to you by  [default: the strongest your token can]",
        show_default=False,
    ),
]
DisplayOption = Annotated[str, typer.Option("--display", help="Your name for people.")]
ShareKeyOption = Annotated[
    Literal["P256", "P384"] | None,
    typer.Option(
        "--share-key",
        help="Also make a key that your share of a recovery key can be sealed to.",
        show_default=False,
    ),
]

AttestationOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--attestation",
        help="Your token's vendor's certificates for keys that you made before; may be repeated.",
        metavar="FILE",
    ),
]


def _add_signing(app: typer.Typer, role: Role, epilog: str) -> None:
    @app.command(epilog=epilog)
    def enroll(
        name: NameArgument,
        token: TokenOption,
        invitation: InvitationOption,
        out: OutOption,
        display: DisplayOption = "",
        attestation: AttestationOption = None,
        log: LogOption = None,
        home: HomeOption = None,
        pin_fd: PinFdOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make your signing key in your own token and ask to be admitted with it."""
        enroll_as(
            role,
            None,
            name=name,
            token=token,
            invitation=invitation,
            out=out,
            display=display,
            attestation=attestation,
            log=log,
            home_path=home,
            pin_fd=pin_fd,
            as_json=as_json,
        )


def _add_sharing(app: typer.Typer, role: Role, epilog: str) -> None:
    @app.command(epilog=epilog)
    def enroll(
        name: NameArgument,
        token: TokenOption,
        invitation: InvitationOption,
        out: OutOption,
        suite: SuiteOption = None,
        display: DisplayOption = "",
        attestation: AttestationOption = None,
        log: LogOption = None,
        home: HomeOption = None,
        pin_fd: PinFdOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make your keys in your own token and ask to be admitted with them.

        A second token of yours gets a --home of its own and the same NAME.  A share key of suite
        MLKEM1024_P384 is half in your token and half in your home: back the home up.  Where your
        token's vendor attests keys (YubiKey), enrol again with --attestation: the same keys.
        """
        enroll_as(
            role,
            suite or "strongest",
            name=name,
            token=token,
            invitation=invitation,
            out=out,
            display=display,
            attestation=attestation,
            log=log,
            home_path=home,
            pin_fd=pin_fd,
            as_json=as_json,
        )


def _add_keeping(app: typer.Typer, role: Role, epilog: str) -> None:
    @app.command(epilog=epilog)
    def enroll(
        name: NameArgument,
        token: TokenOption,
        invitation: InvitationOption,
        out: OutOption,
        share_key: ShareKeyOption = None,
        display: DisplayOption = "",
        attestation: AttestationOption = None,
        log: LogOption = None,
        home: HomeOption = None,
        pin_fd: PinFdOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make your signing key in your own token and ask to be admitted with it."""
        enroll_as(
            role,
            share_key,
            name=name,
            token=token,
            invitation=invitation,
            out=out,
            display=display,
            attestation=attestation,
            log=log,
            home_path=home,
            pin_fd=pin_fd,
            as_json=as_json,
        )


def enroll_as(
    role: Role,
    suite: SuiteName | Literal["strongest"] | None,
    *,
    name: str,
    token: str,
    invitation: Path,
    out: Path,
    display: str,
    log: str | None,
    home_path: Path | None,
    pin_fd: int | None,
    as_json: bool,
    attestation: list[Path] | None = None,
) -> None:
    """Make somebody's keys in his token and write his admission."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    home = open_home(home_path, role)
    invited = ops.read_invitation(invitation)
    with open_token(token, pin_fd=pin_fd) as opened:
        admission = ops.enroll(
            home,
            opened,
            token_uri=token,
            principal=name,
            display=display,
            role=role,
            invitation=invited,
            suite=suite,
            attestation=read_certificates(attestation or ()),
        )
    write_new_file(out, admission)
    _tell_of_rsa(screen, home.identity())
    show_enrolled(screen, home.identity(), out, admission)
    tell_of_half(screen, home.path, home.identity().shares)
    offer(screen, None, log, [admission])


def _tell_of_rsa(screen: Screen, identity: Identity) -> None:
    for share in identity.shares:
        if is_oaep(share.suite):
            screen.say(
                f"your token agrees on no curve: shares are sealed to you by {share.suite}, if the"
                " policy takes that; the custodian will send a challenge to this key"
            )


def tell_of_half(screen: Screen, home: Path, shares: Sequence[ShareIdentity]) -> None:
    """Say what no token keeps of somebody's share keys, and so nothing replaces."""
    for share in shares:
        if share.mlkem_seed_file is not None:
            screen.say(
                f"half of the share key is in {_shown(home)}/mlkem: back it up, nothing replaces it"
            )


def _shown(path: Path) -> str:
    """Write a folder as people do whose own folder it is in."""
    own = Path.home()
    return f"~/{path.relative_to(own)}" if path.is_relative_to(own) else str(path)


def show_enrolled(screen: Screen, identity: Identity, path: Path, admission: bytes) -> None:
    """Show whose keys were made, so that they can be compared by voice."""
    shown = Enrolled(
        principal=identity.principal,
        role=identity.role,
        admission=str(path),
        digest=decode_statement(Admission, admission).digest,
        signing_key=key_id(identity.signing_spki),
        share_keys=tuple(share.key_id for share in identity.shares),
    )

    def words() -> None:
        screen.show(f"{shown.admission}: {shown.principal}, {shown.role}")
        screen.show(f"  sign   {shown.signing_key}")
        for share in shown.share_keys:
            screen.show(f"  share  {share}")
        screen.show("its digest, to read to the custodian:")
        screen.speak(shown.digest)

    screen.result(shown, words)
