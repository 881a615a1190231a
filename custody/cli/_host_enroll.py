"""``enroll`` and ``measure``: what a host shows to those who vouch for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._eventlog import EventLogOption, read_event_log
from custody.cli._home import JsonOption, OutOption, TpmOption, example, moment
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import Digest, KeyId, Record, decode, encode
from custody.formats.enrolment import Challenge
from custody.ops import enroll as ops
from custody.ops.folders import read_file, reading
from custody.ops.golden import measure as read_registers
from custody.ops.landing import check_absent, write_new_file
from custody.ops.pem import read_certificate_file

_MAX_BYTES = 1 << 20
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
        )
    )(enroll)
    app.command(epilog=example("custody host measure --tpm tpm: --out gpu-7.boot.json"))(measure)


def enroll(
    name: Annotated[str, typer.Argument(help="This host's name.", show_default=False)],
    tpm: TpmOption,
    out: OutOption,
    answer: Annotated[
        Path | None,
        typer.Option("--answer", help="Answer this enroller's challenge.", metavar="FILE"),
    ] = None,
    intermediate: Annotated[
        list[Path] | None,
        typer.Option(
            "--intermediate",
            help="Certificates between vendor and EK that the TPM lacks.",
            metavar="FILE",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show this host's TPM to the enrollers, or answer the challenge of one of them."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    device = open_tpm(tpm)
    if answer is not None:
        with reading(answer):
            challenge = decode(Challenge, read_file(answer, max_bytes=_MAX_BYTES))
            given = ops.answer(device, challenge)
        write_new_file(out, encode(given))
        screen.made(out)
        return
    chain = [read_certificate_file(path) for path in intermediate or ()]
    request = ops.ask(device, host=name, intermediates=chain)
    write_new_file(out, encode(request))
    shown = Asked(host=name, file=str(out), request=request.digest(), ek=ops.ek_digest(request))
    screen.result(shown, lambda: screen.show(f"{out}\nEK, for the inventory: {shown.ek}"))


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
