"""``custody officer upgrade-slot``: a post-quantum share key for who has one without."""

from __future__ import annotations

from pathlib import Path

import typer

from custody.cli._enroll import InvitationOption, tell_of_half
from custody.cli._home import HomeOption, JsonOption, OutOption, PinFdOption, example, open_home
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.crypto.keyslots import recipient_id
from custody.encoding import Digest, KeyId, Record
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement
from custody.formats.state import Identity
from custody.ops import admit as ops
from custody.ops.landing import check_absent, write_new_file


class Upgraded(Record, frozen=True, kw_only=True):
    """What ``upgrade-slot --json`` shows: the key that comes, and those that may leave."""

    principal: str
    admission: str
    digest: Digest
    share_key: KeyId
    suite: str
    older_keys: tuple[KeyId, ...]


def add_upgrade(app: typer.Typer) -> None:
    """Add ``upgrade-slot``."""
    app.command(
        "upgrade-slot",
        epilog=example(
            "custody officer upgrade-slot --invitation invitation.json \\",
            "    --out alice-2.admission.dsse",
        ),
    )(_upgrade_slot)


def _upgrade_slot(
    invitation: InvitationOption,
    out: OutOption,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a share key that quantum computers do not open either, and ask to be admitted with it.

    It is in two halves: P-384 in your token, ML-KEM-1024 in a file of your home, and both are
    needed.  Back the home up.  Bundles are sealed to it from the next policy that lists it.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, "officer")
    invited = ops.read_invitation(invitation)
    ops.check_upgradable(where)
    made_before = ops.hybrid_of(where.identity()) is not None
    with open_token(where.identity().token, pin_fd=pin_fd) as opened:
        admission = ops.upgrade(where, opened, invitation=invited)
    write_new_file(out, admission)
    _show(screen, where.identity(), where.path, out, admission)
    if made_before:
        screen.say(
            "the key was made and offered before: an earlier admission of it waits, or is admitted;"
            " a custodian needs one of them"
        )


def _show(screen: Screen, identity: Identity, home: Path, out: Path, data: bytes) -> None:
    statement = decode_statement(Admission, data)
    (share,) = statement.predicate.shares
    shown = Upgraded(
        principal=identity.principal,
        admission=str(out),
        digest=statement.digest,
        share_key=recipient_id(share.spki, share.mlkem),
        suite=share.suite,
        older_keys=tuple(s.key_id for s in identity.shares if s.spki != share.spki),
    )

    def words() -> None:
        screen.show(f"{shown.admission}: {shown.principal}, officer")
        screen.show(f"  share  {shown.share_key}, {shown.suite}")
        if shown.older_keys:
            screen.show("may leave with the policy that lists it, [leaving] keys:")
        for key in shown.older_keys:
            screen.show(f"  share  {key}")
        screen.show("its digest, to read to the custodian:")
        screen.speak(shown.digest)

    screen.result(shown, words)
    tell_of_half(screen, home, [known for known in identity.shares if known.spki == share.spki])
