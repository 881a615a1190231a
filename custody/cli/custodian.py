"""``custody custodian``: keep the policy and the certificates of an environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._enroll import add_enroll
from custody.cli._expiry import status, status_epilog
from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutFolderOption,
    OutOption,
    PinFdOption,
    YesOption,
    example,
    moment,
    open_home,
    role_app,
)
from custody.cli._issued import read_issued
from custody.cli._later import Verbs
from custody.cli._policy import policy_app
from custody.cli._trust import add_trust
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.crypto.certificates import Reason
from custody.crypto.der import MAX_CRL_BYTES
from custody.encoding import KeyId, format_time
from custody.ops import admit as people
from custody.ops import authority as ca
from custody.ops.folders import read_file
from custody.ops.landing import (
    check_absent,
    check_folder,
    check_new_file,
    disk_errors,
    write_new_file,
)
from custody.ops.pem import read_certificates
from custody.ops.policy_words import called
from custody.ops.spoken import spoken


def _challenge(app: typer.Typer) -> None:
    from custody.cli._prove import add_challenge

    add_challenge(app)


def _recovery(app: typer.Typer) -> None:
    from custody.cli._backup import add_backup
    from custody.cli._recovery import add_recovery
    from custody.cli._recovery_make import recovery_app

    add_recovery(app)
    add_backup(app, recovery_app)


def _ceremony(app: typer.Typer) -> None:
    from custody.cli._ceremony import add_ceremony

    add_ceremony(app)


app = role_app(
    "custodian",
    "custody custodian init ida --environment production --token pkcs11:token=ida \\",
    "    --authority --out production-start",
    "custody custodian admit alice.admission.dsse --out production",
    "custody custodian policy propose draft.toml *.admission.dsse --out policy-1.dsse",
    verbs=(
        Verbs(("challenge",), _challenge),
        Verbs(("init", "ceremony"), _ceremony),
        Verbs(("recovery", "check-share", "break-glass", "drill", "backup", "restore"), _recovery),
    ),
)
app.add_typer(policy_app, name="policy")
app.command(epilog=status_epilog)(status)


@app.command(
    epilog=example(
        "custody custodian admit alice.admission.dsse bob.admission.dsse --out production"
    )
)
def admit(
    admissions: Annotated[
        list[Path],
        typer.Argument(help="Admissions that answer your invitation.", metavar="FILE"),
    ],
    out: OutFolderOption,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            "--answer", help="An answer to your challenge of one; may be repeated.", metavar="FILE"
        ),
    ] = None,
    roots: Annotated[
        list[Path] | None,
        typer.Option(
            "--attestation-root",
            help="A vendor's root: verify by it what vendors attest; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", help="How long certificates live.", metavar="N", min=1, max=397)
    ] = 397,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that people hold the keys they offer, and issue certificates for them.

    Whether they are who they say is yours to know: compare the digests with them by voice.  An
    admission may be admitted again, before its certificates end.  A key that a YubiKey attests, by
    a path to a root of yours, is listed as vendor-attested by what you propose from this home.
    """
    screen = Screen(as_json=as_json)
    where = open_home(home, "custodian")
    for path in answers or ():
        people.take_answer(where, path)
    checked = [people.check(where, path) for path in admissions]
    pinned = read_certificates(roots or ())
    if roots:
        checked = [people.attest(where, one, roots=pinned, now=moment(None)) for one in checked]
    offered: set[KeyId] = set()
    for admission in checked:
        person = admission.principal
        kind = admission.statement.predicate.token_class
        screen.say(f"{called(person)}: {', '.join(person.roles)}; {kind} token")
        for key in admission.offered:
            screen.say(f"  {key.use:22} {key.key_id}")
            if until := ca.certified_until(where, key.key_id):
                screen.say(f"  {'':22} has a certificate already, until {format_time(until)}")
            if key.key_id in offered:
                screen.say(f"  {'':22} the same key as in another of these admissions")
            offered.add(key.key_id)
            if shown := admission.standing(key.key_id):
                screen.say(f"  {'':22} {shown}")
        for line in spoken(admission.statement.digest):
            screen.say(f"    {line}")
    check_folder(out)
    screen.confirm("admit them?", yes=yes)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with open_token(where.identity().token, pin_fd=pin_fd) as opened, opened.session():
        authority = ca.open_authority(where, opened)
        if roots:
            # A vendor's certificates may have ended at the question.
            checked = [people.attest(where, one, roots=pinned, now=moment(None)) for one in checked]
        for admission in checked:
            issued = ca.issue(authority, admission, now=moment(None), life=timedelta(days=days))
            made += ca.write_certificates(out, issued)
            people.keep(where, admission)
    screen.made(*made)


@app.command(
    epilog=example(
        "custody custodian revoke production/bob.sign-1f0c77ab.cer --reason keyCompromise \\",
        "    --out production/authority-2.crl",
    )
)
def revoke(
    which: Annotated[
        list[str],
        typer.Argument(help="Certificate files, or key ids.", metavar="CERT|KEYID"),
    ],
    reason: Annotated[Reason, typer.Option("--reason", help="Why (RFC 5280).")],
    out: OutOption,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="What was signed before still counts  [default: now]", metavar="TIME"
        ),
    ] = None,
    crl: Annotated[
        Path | None,
        typer.Option("--crl", help="The list in use, if newer than yours.", metavar="FILE"),
    ] = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke certificates: issue the next revocation list with them in it."""
    screen = Screen(as_json=as_json)
    where = open_home(home, "custodian")
    when = moment(since, option="--since")
    check_new_file(out)
    ders = read_issued(where, which)
    for der in ders:
        screen.say(f"{ca.whose(where, der)}: {reason}, since {format_time(when)}")
    screen.confirm("revoke?", yes=yes)
    with open_token(where.identity().token, pin_fd=pin_fd) as opened:
        new = ca.revoke(
            ca.open_authority(where, opened),
            ders,
            reason=reason,
            since=when,
            now=moment(None),
            current=_read_crl(crl),
        )
    write_new_file(out, new)
    screen.made(out)


@app.command(
    "renew-crl", epilog=example("custody custodian renew-crl --out production/authority-3.crl")
)
def renew_crl(
    out: OutOption,
    crl: Annotated[
        Path | None,
        typer.Option("--crl", help="The list in use, if newer than yours.", metavar="FILE"),
    ] = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue the next revocation list before the current one grows stale."""
    where = open_home(home, "custodian")
    check_absent(out)
    with open_token(where.identity().token, pin_fd=pin_fd) as opened:
        new = ca.renew(ca.open_authority(where, opened), now=moment(None), current=_read_crl(crl))
    write_new_file(out, new)
    Screen(as_json=as_json).made(out)


def _read_crl(path: Path | None) -> bytes | None:
    return None if path is None else read_file(path, max_bytes=MAX_CRL_BYTES)


add_enroll(app, "custodian")
add_trust(app, "custodian")
