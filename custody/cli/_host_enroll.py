"""``enroll`` and ``measure``: what a host shows to those who vouch for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._eventlog import EventLogOption, read_event_log
from custody.cli._home import (
    JsonOption,
    OutOption,
    TpmOption,
    example,
    moment,
    read_digest,
)
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.crypto.certificates import spki_of
from custody.encoding import Digest, KeyId, Record, encode, key_id
from custody.errors import Incomplete
from custody.formats.enrolment import Challenge
from custody.ops import enroll as ops
from custody.ops.files import read_record
from custody.ops.folders import read_file, reading
from custody.ops.golden import measure as read_registers
from custody.ops.landing import check_absent, write_new_file
from custody.ops.pem import read_certificate_file

if TYPE_CHECKING:
    from custody.keys.hostapi import HostTpm
    from custody.transports.enrolment_client import EnrolmentClient

_MAX_BYTES = 1 << 20
#: A person signs; asking oftener only costs.
_POLL_SECONDS = 5
#: What a TCG PC boots through before its operating system: firmware, loader, Secure Boot state.
_BOOT_PCRS = "0-9,11-14"


class Asked(Record, frozen=True, kw_only=True):
    """What ``host enroll --json`` shows of a request."""

    host: str
    file: str
    request: Digest
    ek: KeyId
    """For the inventory: SHA-256 of the EK's SubjectPublicKeyInfo."""


def add_host_enroll(app: typer.Typer) -> None:
    """Add ``enroll`` and ``measure`` to the host's commands."""
    app.command(
        epilog=example(
            "custody host enroll gpu-7 --tpm tpm: --out gpu-7.enrolment.json",
            "custody host enroll gpu-7 --tpm tpm: --answer erik.challenge.json \\",
            "    --out erik.answer.json",
            "custody host enroll gpu-7 --tpm tpm: --url https://desk.example.com:8470/ \\",
            "    --server-ca authority.pem --out gpu-7.dsse",
        )
    )(enroll)
    app.command(epilog=example("custody host measure --tpm tpm: --out gpu-7.boot.json"))(measure)


AnswerOption = Annotated[
    Path | None,
    typer.Option("--answer", help="Answer this enroller's challenge.", metavar="FILE"),
]
IntermediateOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--intermediate",
        help="Certificates between vendor and EK that the TPM lacks.",
        metavar="FILE",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Do both at this enroller's server.", metavar="URL"),
]
ServerCaOption = Annotated[
    Path | None,
    typer.Option(
        "--server-ca", help="The authority of the server's certificate (PEM).", metavar="FILE"
    ),
]
ServerKeyOption = Annotated[
    str | None,
    typer.Option(
        "--server-key",
        help="Or the server's own key: its digest, or a file with its certificate.",
        metavar="DIGEST|FILE",
    ),
]
OntoOption = Annotated[
    Path | None,
    typer.Option("--onto", help="With --url: the record other enrollers signed.", metavar="FILE"),
]
WaitOption = Annotated[
    int,
    typer.Option(
        "--wait", help="With --url: wait so many minutes for a person.", metavar="N", min=0
    ),
]
FetchOption = Annotated[
    str | None,
    typer.Option("--fetch", help="With --url: get the record of this request.", metavar="REQUEST"),
]


def enroll(
    name: Annotated[str, typer.Argument(help="This host's name.", show_default=False)],
    tpm: TpmOption,
    out: OutOption,
    answer: AnswerOption = None,
    intermediate: IntermediateOption = None,
    url: UrlOption = None,
    server_ca: ServerCaOption = None,
    server_key: ServerKeyOption = None,
    onto: OntoOption = None,
    wait: WaitOption = 0,
    fetch: FetchOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show this host's TPM to the enrollers, or answer the challenge of one of them.

    With --url both is done at an enroller's server, and what is written is the record he signed.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    device = open_tpm(tpm)
    if url is not None:
        if answer is not None:
            raise typer.BadParameter("goes with files, not with --url", param_hint="--answer")
        server = _server(url, server_ca, server_key)
        record = _enroll_at(
            screen,
            server,
            device,
            name=name,
            intermediates=[read_certificate_file(path) for path in intermediate or ()],
            onto=None if onto is None else read_file(onto, max_bytes=_MAX_BYTES),
            fetch=None if fetch is None else read_digest(fetch, option="REQUEST"),
            minutes=wait,
        )
        write_new_file(out, record)
        screen.made(out)
        return
    if (server_ca, server_key, onto, fetch, wait) != (None, None, None, None, 0):
        raise typer.BadParameter("whose server?", param_hint="--url")
    if answer is not None:
        challenge = read_record(Challenge, answer)
        with reading(answer):
            given = ops.answer(device, challenge)
        write_new_file(out, encode(given))
        screen.made(out)
        return
    chain = [read_certificate_file(path) for path in intermediate or ()]
    request = ops.ask(device, host=name, intermediates=chain)
    write_new_file(out, encode(request))
    shown = Asked(host=name, file=str(out), request=request.digest(), ek=ops.ek_digest(request))
    screen.result(shown, lambda: screen.show(f"{out}\nEK, for the inventory: {shown.ek}"))


def _server(url: str, ca_file: Path | None, key: str | None) -> EnrolmentClient:
    from custody.transports.enrolment_client import EnrolmentClient, ServerTrust

    if (ca_file is None) == (key is None):
        raise typer.BadParameter(
            "by which authority or key is the server known? one of --server-ca and --server-key",
            param_hint="--url",
        )
    if key is None:
        return EnrolmentClient(url, ServerTrust(ca_file=ca_file))
    known = Path(key)
    if known.is_file():
        return EnrolmentClient(url, ServerTrust(key=key_id(spki_of(read_certificate_file(known)))))
    return EnrolmentClient(url, ServerTrust(key=read_digest(key, option="--server-key")))


def _enroll_at(
    screen: Screen,
    server: EnrolmentClient,
    device: HostTpm,
    *,
    name: str,
    intermediates: list[bytes],
    onto: bytes | None,
    fetch: Digest | None,
    minutes: int,
) -> bytes:
    from custody.ops.enroll_online import check_own, enroll_at

    if fetch is None:
        request, record = enroll_at(
            server, device, host=name, intermediates=intermediates, onto=onto
        )
    else:
        request, record = fetch, server.fetch(fetch)
    if record is None:
        screen.say(f"the answer was right; request {request} waits for the enroller")
    until = time.monotonic() + 60 * minutes
    while record is None and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
        record = server.fetch(request)
    if record is None:
        raise Incomplete(
            "the enroller has not signed yet",
            missing=("the enroller's signature",),
            hint=f"later: the same command with --fetch {request}",
        )
    return check_own(record, device, host=name)


def measure(
    tpm: TpmOption,
    out: OutOption,
    pcrs: Annotated[
        str, typer.Option("--pcrs", help="Which registers, as 0-7,11.", metavar="LIST")
    ] = _BOOT_PCRS,
    event_log: EventLogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read this host's boot state, for the enrollers to make a golden set of.

    What is read is what is running: measure a machine you know to be right. With its event log the
    golden set names components, and says later which of them changed.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    measurement = read_registers(
        open_tpm(tpm),
        pcrs=_registers(pcrs),
        now=moment(None),
        event_log=read_event_log(event_log),
    )
    write_new_file(out, encode(measurement))

    def words() -> None:
        screen.show(str(out))
        screen.table(("pcr", "sha256"), [(str(v.pcr), v.value) for v in measurement.pcrs])

    screen.result(measurement, words)


def _registers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.split(","):
        first, dash, last = item.partition("-")
        bounds = (first, last if dash else first)
        if not all(b.isascii() and b.isdigit() and int(b) <= 23 for b in bounds):
            raise typer.BadParameter(f"{item!r} is no register 0 to 23", param_hint="--pcrs")
        found |= set(range(int(bounds[0]), int(bounds[1]) + 1))
    return tuple(sorted(found))
