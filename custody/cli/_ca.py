"""``custody enroller ca``: an attestation authority, with or without an environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    TokenOption,
    YesOption,
    example,
    moment,
    open_home,
    read_env,
)
from custody.cli._issued import read_issued
from custody.cli._later import Group
from custody.cli._ui import Screen
from custody.cli._vouching import InventoryOption, RequestArgument
from custody.cli._wiring import credential_maker, open_token
from custody.crypto.certificates import Reason, read_certificate
from custody.encoding import Digest, Record, encode, format_time
from custody.formats.enrolment import Answer, EnrolmentRecord, EnrolmentRequest
from custody.formats.hostcertificate import TlsRequest
from custody.ops import attestation_ca as ca
from custody.ops import tls_certificates
from custody.ops.authority import (
    newest_crl,
    open_authority,
    renew,
    revoke,
    whose,
)
from custody.ops.files import read_record
from custody.ops.folders import read_statement_file
from custody.ops.inventory import read_inventory
from custody.ops.landing import check_absent, check_new_file, new_directory, write_new_file
from custody.ops.pem import (
    certificate_pem,
    crl_pem,
    read_certificate_file,
    read_certificates,
    read_crls,
)
from custody.ops.trust import current

_ROLE = "enroller"
_PLACES = {"tpm": "its key is fixed in the TPM", "file": "its key is in a file of the host"}

ca_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Certify keys of hosts for other programs.",
    epilog=example(
        "custody enroller ca init 'rack 3 attestation authority' --token pkcs11:token=ca \\",
        "    --out authority",
    ),
)

RootsOption = Annotated[
    list[Path],
    typer.Option(
        "--vendor-root",
        help="Certificates of TPM vendors you trust; may be repeated.",
        metavar="FILE",
    ),
]
VendorCrlOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--vendor-crl",
        help="A revocation list of a TPM vendor's; may be repeated.",
        metavar="FILE",
    ),
]
CrlOption = Annotated[
    Path | None,
    typer.Option("--crl", help="The list in use, if newer than this home's.", metavar="FILE"),
]
DaysOption = Annotated[
    int,
    typer.Option("--days", help="How long it is good.", metavar="N", min=1, max=ca.MAX_LIFE.days),
]


class IssuedShown(Record, frozen=True, kw_only=True):
    """What ``issue-ak --json`` and ``issue-tls --json`` show."""

    file: str
    host: str
    source: str
    digest: Digest
    key_class: str | None
    expires: str


@ca_app.command(
    epilog=example(
        "custody enroller ca init 'rack 3 attestation authority' --token pkcs11:token=ca \\",
        "    --crl-url http://crl.example.com/rack3.crl --out authority",
    )
)
def init(
    name: Annotated[str, typer.Argument(help="Its name in certificates.", show_default=False)],
    token: TokenOption,
    out: OutOption,
    crl_url: Annotated[
        str | None,
        typer.Option(
            "--crl-url", help="Where you will publish its revocation list.", metavar="URL"
        ),
    ] = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an authority's key in a token; writes its certificate and first revocation list."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, _ROLE)
    with new_directory(out, mode=0o755) as folder:
        with open_token(token, pin_fd=pin_fd) as opened, opened.session():
            certificate = ca.found(
                where, opened, token_uri=token, name=name, crl_url=crl_url, now=moment(None)
            )
        write_new_file(folder / "authority.pem", certificate_pem(certificate))
        write_new_file(folder / "authority.crl.pem", crl_pem(newest_crl(where)))
    screen.made(out / "authority.pem", out / "authority.crl.pem")


@ca_app.command(
    epilog=example(
        "custody enroller ca challenge gpu-7.enrolment.json --inventory inventory.txt \\",
        "    --vendor-root vendors.pem --out ca.challenge.json",
    )
)
def challenge(
    request: RequestArgument,
    inventory: InventoryOption,
    vendor_root: RootsOption,
    out: OutOption,
    vendor_crl: VendorCrlOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a host's request and challenge its TPM in the authority's name."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, _ROLE)
    asked = read_record(EnrolmentRequest, request)
    accepted = _accepted(inventory, vendor_root, vendor_crl)
    posed = ca.challenge_host(
        where, asked, accepted=accepted, make_credential=credential_maker(), now=moment(None)
    )
    write_new_file(out, encode(posed))
    screen.made(out)


@ca_app.command(
    "issue-ak",
    epilog=example(
        "custody enroller ca issue-ak gpu-7.enrolment.json --answer ca.answer.json \\",
        "    --inventory inventory.txt --vendor-root vendors.pem --out gpu-7.ak.pem",
        "custody enroller ca issue-ak --record production/gpu-7.dsse --env production \\",
        "    --out gpu-7.ak.pem",
    ),
)
def issue_ak(
    out: OutOption,
    request: Annotated[
        Path | None,
        typer.Argument(help="A host's enrolment request.", metavar="FILE", show_default=False),
    ] = None,
    answer: Annotated[
        Path | None,
        typer.Option("--answer", help="The host's answer to the challenge.", metavar="FILE"),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option("--inventory", help="Approved EKs, as for the challenge.", metavar="PATH"),
    ] = None,
    vendor_root: Annotated[
        list[Path] | None,
        typer.Option("--vendor-root", help="Vendors, as for the challenge.", metavar="FILE"),
    ] = None,
    vendor_crl: VendorCrlOption = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", help="An enrolment record that counts, in their place.", metavar="FILE"
        ),
    ] = None,
    env: EnvOption = None,
    days: DaysOption = ca.AK_LIFE.days,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Certify a host's AK: after the authority's own challenge, or for an enrolment record."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where, life = open_home(home, _ROLE), timedelta(days=days)
    if record is not None:
        if request is not None or answer is not None:
            raise typer.BadParameter("a record, or a request and its answer", param_hint="--record")
        statement = read_statement_file(EnrolmentRecord, record)
        situation = current(where, documents=read_env(env), now=moment(None))
        with open_token(ca.settings_of(where).token, pin_fd=pin_fd) as opened:
            authority = open_authority(where, opened)
            situation = judged_anew(screen, where, situation)
            issued = ca.issue_ak_of_record(authority, statement, situation=situation, life=life)
    else:
        if request is None or answer is None or inventory is None or not vendor_root:
            raise typer.BadParameter(
                "a request with --answer, --inventory and --vendor-root, or --record",
                param_hint="FILE",
            )
        asked, given = read_record(EnrolmentRequest, request), read_record(Answer, answer)
        accepted = _accepted(inventory, vendor_root, vendor_crl)
        with open_token(ca.settings_of(where).token, pin_fd=pin_fd) as opened:
            authority = open_authority(where, opened)
            issued = ca.issue_ak(
                authority, asked, given, accepted=accepted, now=moment(None), life=life
            )
    _write(screen, out, issued)


@ca_app.command(
    "issue-tls",
    epilog=example(
        "custody enroller ca issue-tls gpu-7.tls.json --ak gpu-7.ak.pem \\",
        "    --dns gpu-7.example.com --out gpu-7.tls.pem",
    ),
)
def issue_tls(
    request: Annotated[
        Path,
        typer.Argument(help="What custody host tls wrote.", metavar="FILE", show_default=False),
    ],
    ak: Annotated[
        Path, typer.Option("--ak", help="The certificate of the host's AK.", metavar="FILE")
    ],
    dns: Annotated[
        list[str],
        typer.Option("--dns", help="A name that is the host's; may be repeated.", metavar="NAME"),
    ],
    out: OutOption,
    days: DaysOption = tls_certificates.TLS_LIFE.days,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Certify the key that a host answers TLS with, on its AK's word.

    Which names are the host's is yours to know: only those you give are certified.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, _ROLE)
    asked, certificate = read_record(TlsRequest, request), read_certificate_file(ak)
    with open_token(ca.settings_of(where).token, pin_fd=pin_fd) as opened:
        issued = tls_certificates.issue_tls(
            open_authority(where, opened),
            asked,
            ak_certificate=certificate,
            dns=dns,
            now=moment(None),
            life=timedelta(days=days),
        )
    _write(screen, out, issued)


@ca_app.command(
    "revoke",
    epilog=example(
        "custody enroller ca revoke gpu-7.tls.pem --reason keyCompromise --out rack3-2.crl.pem"
    ),
)
def revoke_certificates(
    which: Annotated[
        list[str],
        typer.Argument(help="Certificate files, or key ids.", metavar="CERT|KEYID"),
    ],
    reason: Annotated[Reason, typer.Option("--reason", help="Why (RFC 5280).")],
    out: OutOption,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Since when it is bad  [default: now]", metavar="TIME"),
    ] = None,
    crl: CrlOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke certificates: issue the next revocation list with them in it.

    For any reason but superseded, no certificate is issued for these keys again, and the TLS
    certificates that an AK vouched for are revoked with it.
    """
    screen = Screen(as_json=as_json)
    where = open_home(home, _ROLE)
    when = moment(since, option="--since")
    check_new_file(out)
    ders = read_issued(where, which)
    if reason != "superseded":
        ders += tls_certificates.resting_on(where, ders)
    for der in ders:
        screen.say(f"{whose(where, der)}: {reason}, since {format_time(when)}")
    screen.confirm("revoke?", yes=yes)
    with open_token(ca.settings_of(where).token, pin_fd=pin_fd) as opened:
        authority = open_authority(where, opened)
        new = revoke(
            authority,
            ders,
            reason=reason,
            since=when,
            now=moment(None),
            current=_read_crl(crl),
        )
    write_new_file(out, crl_pem(new))
    screen.made(out)


@ca_app.command("crl", epilog=example("custody enroller ca crl --out rack3-3.crl.pem"))
def next_crl(
    out: OutOption,
    crl: CrlOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue the next revocation list before the current one grows stale."""
    where = open_home(home, _ROLE)
    check_absent(out)
    with open_token(ca.settings_of(where).token, pin_fd=pin_fd) as opened:
        new = renew(open_authority(where, opened), now=moment(None), current=_read_crl(crl))
    write_new_file(out, crl_pem(new))
    Screen(as_json=as_json).made(out)


def _accepted(
    inventory: Path, vendor_roots: list[Path], vendor_crls: list[Path] | None
) -> ca.Accepted:
    return ca.Accepted(
        roots=read_certificates(vendor_roots),
        inventory=read_inventory(inventory),
        crls=read_crls(vendor_crls or ()),
    )


def _read_crl(path: Path | None) -> bytes | None:
    return None if path is None else read_crls([path])[0]


def _write(screen: Screen, out: Path, issued: ca.Issued) -> None:
    write_new_file(out, certificate_pem(issued.der))
    shown = IssuedShown(
        file=str(out),
        host=issued.vouched.host,
        source=issued.vouched.source,
        digest=issued.vouched.digest,
        key_class=issued.key_class,
        expires=format_time(read_certificate(issued.der).not_valid_after_utc),
    )

    def words() -> None:
        screen.verdicts(issued.verdicts)
        screen.show(f"{out}: {shown.host}, until {shown.expires}")
        if shown.key_class is not None:
            screen.show(f"  {_PLACES[shown.key_class]}")
        screen.show(f"  by {shown.source} {shown.digest}")

    screen.result(shown, words)
