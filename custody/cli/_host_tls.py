"""``tls``: what a host shows an attestation authority of a key it answers TLS with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import JsonOption, OutOption, TpmOption, example, moment, read_digest
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import encode
from custody.ops import tls as ops
from custody.ops.landing import check_absent, write_new_file
from custody.ops.pem import read_csr_file


def add_host_tls(app: typer.Typer) -> None:
    """Add ``tls`` to the host's commands."""
    app.command(
        epilog=example(
            "custody host tls gpu-7 --tpm tpm: --dns gpu-7.example.com --out gpu-7.tls.json",
            "custody host tls gpu-7 --tpm tpm: --dns gpu-7.example.com --csr gpu-7.csr \\",
            "    --out gpu-7.tls.json",
        )
    )(tls)


def tls(
    name: Annotated[str, typer.Argument(help="This host's name.", show_default=False)],
    tpm: TpmOption,
    dns: Annotated[
        list[str],
        typer.Option("--dns", help="A DNS name of this host; may be repeated.", metavar="NAME"),
    ],
    out: OutOption,
    csr: Annotated[
        Path | None,
        typer.Option(
            "--csr", help="A request (PKCS#10, CN=NAME) by a key in a file.", metavar="FILE"
        ),
    ] = None,
    ek: Annotated[
        str | None,
        typer.Option(
            "--ek",
            help="This host's EK, as host enroll showed it; another TPM in its place is refused.",
            metavar="DIGEST",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a certificate of a TLS key: of the one in the TPM, or by --csr of one in a file.

    The TPM keeps its key at the persistent handle 0x81000c40, for a TLS server with a TPM
    provider. It cannot leave; a key in a file can, and its certificate says so. Where the TPM's
    owner has a password, name the EK: who sits on the bus cannot then have it shown to his TPM.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    device, now = open_tpm(tpm), moment(None)
    if ek is not None:
        device = ops.of_ek(device, read_digest(ek, option="--ek"))
    if csr is None:
        request = ops.ask_for_tpm_key(device, host=name, dns=dns, now=now)
    else:
        given = read_csr_file(csr)
        request = ops.ask_for_file_key(device, host=name, dns=dns, csr=given, now=now)
    write_new_file(out, encode(request))
    screen.made(out)
