"""``serve`` and ``sign``: an enroller's desk, for hosts that ask over HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    PinFdOption,
    YesOption,
    example,
    moment,
    open_home,
    read_digest,
)
from custody.cli._log import LogOption, offer
from custody.cli._ui import Screen
from custody.cli._vouching import InventoryOption, say_whom, signing, situation_of
from custody.cli._wiring import credential_maker, open_token
from custody.crypto.certificates import spki_of
from custody.encoding import Digest, Record, format_time, key_id
from custody.errors import Incomplete
from custody.formats.policy import TpmClass
from custody.keys.api import Token
from custody.ops.actor import signer_of
from custody.ops.attestation_ca import settings_of
from custody.ops.authority import open_authority
from custody.ops.desk import Desk, DeskFiles, DeskRules, Standing, Unattended
from custody.ops.enroll import ek_digest
from custody.ops.folders import read_file
from custody.ops.home import Home
from custody.ops.inventory import read_inventory
from custody.ops.landing import check_absent, write_new_file
from custody.ops.pem import read_certificates
from custody.ops.tls_certificates import ServerKey, certify_server

_ROLE = "enroller"
_MAX_BYTES = 1 << 20


class WaitingShown(Record, frozen=True, kw_only=True):
    """What ``sign --json`` shows of a host that waits."""

    request: Digest
    host: str
    ek: Digest
    answered_at: str


def add_serve(app: typer.Typer) -> None:
    """Add ``serve`` and ``sign`` to the enroller's commands."""
    app.command(
        epilog=example(
            "custody enroller serve --listen 10.0.0.5:8470 --tls-cert desk.pem \\",
            "    --tls-key desk.key --inventory inventory.txt --env ./production",
            "custody enroller serve --listen 10.0.0.5:8470 --tls-name desk.example.com \\",
            "    --inventory inventory.txt --sign-listed --trust-class hardware --env ./production",
        )
    )(serve)
    app.command(
        epilog=example(
            "custody enroller sign --inventory inventory.txt --env ./production",
            "custody enroller sign 5ec8…3c --trust-class hardware --inventory inventory.txt \\",
            "    --env ./production --out gpu-7.dsse",
        )
    )(sign)


def serve(
    inventory: InventoryOption,
    listen: Annotated[
        str, typer.Option("--listen", help="Address and port.", metavar="ADDRESS:PORT")
    ] = "127.0.0.1:8470",
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", help="The server's certificate (PEM).", metavar="FILE"),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", help="Its key (PEM, not encrypted).", metavar="FILE"),
    ] = None,
    tls_name: Annotated[
        list[str] | None,
        typer.Option(
            "--tls-name",
            help="Or: certify a key made for this run by this home's attestation authority, for"
            " this DNS name or address; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    sign_listed: Annotated[
        bool,
        typer.Option(
            "--sign-listed",
            help="Sign at once, unattended, for TPMs the inventory lists with their host's name.",
        ),
    ] = False,
    trust_class: Annotated[
        TpmClass | None,
        typer.Option("--trust-class", help="With --sign-listed: what kind of TPMs these are."),
    ] = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
) -> None:
    """Enrol hosts over HTTPS: challenge those on the inventory, queue what they answer for sign.

    The policy, its files and the inventory are read anew for each host. A server that was stopped
    anywhere goes on.
    """
    from custody.transports.enrolment_server import EnrolmentServer, server_context

    screen = Screen()
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter("is no ADDRESS:PORT", param_hint="--listen")
    if sign_listed != (trust_class is not None):
        raise typer.BadParameter(
            "--trust-class and --sign-listed go together", param_hint="--trust-class"
        )
    where = open_home(home, _ROLE)
    identity = where.identity()
    standing = _standing(where, env, inventory)
    standing()
    with ExitStack() as kept:
        token_of = _Tokens(kept, pin_fd)
        certified = _certified(where, token_of, tls_cert, tls_key, tls_name or [])
        unattended = None
        if trust_class is not None:
            signer = signer_of(identity, token_of(identity.token))
            unattended = Unattended(signer=signer, trust_class=trust_class)
        rules = DeskRules(
            challenger=key_id(identity.signing_spki),
            standing=standing,
            make_credential=credential_maker(),
            unattended=unattended,
            tell=screen.say,
            signed=lambda record: offer(screen, standing().situation.trusted.policy, log, [record]),
        )
        address = (host.strip("[]"), int(port))
        context = server_context(certified.chain_pem, certified.key_pem)
        with EnrolmentServer(address, Desk(where, rules), context, tell=screen.say) as server:
            screen.show(f"https://{host}:{server.server_port}/")
            screen.show(f"key {certified.key_id}")
            server.serve_forever()


def sign(
    inventory: InventoryOption,
    request: Annotated[
        str | None,
        typer.Argument(
            help="The host to vouch for, by the digest shown without one.",
            metavar="REQUEST",
            show_default=False,
        ),
    ] = None,
    trust_class: Annotated[
        TpmClass | None, typer.Option("--trust-class", help="What kind of TPM this is.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write the record here; never overwrites.", metavar="PATH"),
    ] = None,
    turn_away: Annotated[
        bool, typer.Option("--turn-away", help="Forget the host instead; it may ask again.")
    ] = False,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the hosts that answered the server rightly and wait; or vouch for one of them."""
    screen = Screen(as_json=as_json)
    where = open_home(home, _ROLE)
    if where.is_fresh():
        # A desk that is not there is somebody else's, or elsewhere: no home is made to say so.
        where.memory()
    files = DeskFiles(where)
    waiting = {asked.request.digest(): asked for asked in files.waiting()}
    if request is None:
        _show_waiting(screen, files)
        return
    digest = read_digest(request, option="REQUEST")
    if digest not in waiting:
        raise Incomplete("no such host waits", missing=("an answer that was right",), where=request)
    asked = waiting[digest].request
    if turn_away:
        screen.confirm(f"turn {asked.host} away?", yes=yes)
        files.turn_away(digest)
        screen.result({"turnedAway": digest}, lambda: screen.show(f"{asked.host}: turned away"))
        return
    if trust_class is None:
        raise typer.BadParameter("what kind of TPM is this?", param_hint="--trust-class")
    if out is not None:
        check_absent(out)
    standing = _standing(where, env, inventory)()
    say_whom(screen, asked, trust_class, standing.situation)
    screen.confirm("vouch for it?", yes=yes)
    with signing(where, pin_fd) as signer:
        situation = judged_anew(screen, where, standing.situation)
        signed = files.sign(
            digest,
            signer=signer,
            standing=replace(standing, situation=situation),
            trust_class=trust_class,
        )
    if out is not None:
        write_new_file(out, signed)
    screen.result({"signed": digest}, lambda: screen.show(f"{asked.host}: signed"))
    offer(screen, standing.situation.trusted.policy, log, [signed])


class _Tokens:
    """Opens each token once, so that its PIN is asked once, and keeps it open."""

    def __init__(self, kept: ExitStack, pin_fd: int | None) -> None:
        self._kept, self._pin_fd = kept, pin_fd
        self._opened: dict[str, Token] = {}

    def __call__(self, uri: str) -> Token:
        if uri not in self._opened:
            token = open_token(uri, pin_fd=self._pin_fd)
            self._opened[uri] = self._kept.enter_context(token)
        return self._opened[uri]


def _certified(
    home: Home,
    token_of: Callable[[str], Token],
    certificate: Path | None,
    key: Path | None,
    names: list[str],
) -> ServerKey:
    match certificate, key, names:
        case Path(), Path(), []:
            return ServerKey(
                chain_pem=read_file(certificate, max_bytes=_MAX_BYTES),
                key_pem=read_file(key, max_bytes=_MAX_BYTES),
                key_id=key_id(spki_of(read_certificates([certificate])[0])),
            )
        case None, None, [_, *_]:
            token = token_of(settings_of(home).token)
            return certify_server(open_authority(home, token), names, now=moment(None))
        case _:
            raise typer.BadParameter(
                "--tls-cert with --tls-key, or --tls-name", param_hint="--tls-cert"
            )


def _standing(home: Home, env: list[Path] | None, inventory: Path) -> Callable[[], Standing]:
    def standing() -> Standing:
        return Standing(
            situation=situation_of(home, env),
            inventory=read_inventory(inventory),
        )

    return standing


def _show_waiting(screen: Screen, files: DeskFiles) -> None:
    shown = [
        WaitingShown(
            request=asked.request.digest(),
            host=asked.request.host,
            ek=ek_digest(asked.request),
            answered_at=format_time(asked.at),
        )
        for asked in files.waiting()
    ]

    def words() -> None:
        for row in shown:
            screen.show(f"{row.host}, answered {row.answered_at}")
            screen.show(f"  EK       {row.ek}")
            screen.show(f"  request  {row.request}")
        if not shown:
            screen.show("nobody waits")

    screen.result(shown, words)
