"""The command ``open``: it has memory begun before it waits for everything that opening needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from custody.cli._home import (
    AnswersOption,
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    SiteOption,
    example,
    open_home,
)
from custody.cli._log import LogOption
from custody.errors import Refused
from custody.ops.ahead import opening_ahead

_PAYLOAD = "payload"

MaybeTpmOption = Annotated[
    str | None,
    typer.Option(
        "--tpm",
        envvar="CUSTODY_TPM",
        help="This host's TPM: a tpm: URI; needed but for a host that has none.",
        metavar="URI",
    ),
]
RequestArgument = Annotated[
    Path, typer.Argument(help="This host's request.dsse.", metavar="REQUEST")
]
ReceiptOption = Annotated[
    Path | None, typer.Option("--receipt", help="Write the receipt here.", metavar="FILE")
]
BurnOption = Annotated[
    Path | None,
    typer.Option("--burn", help="Write the proof that the request is burnt here.", metavar="FILE"),
]
BaseOption = Annotated[
    Path | None,
    typer.Option("--base", help="The model an update is to, as it was opened here.", metavar="DIR"),
]


def needed_tpm(tpm: str | None, *, home: Path | None = None, instead: str = "") -> str:
    """Return the TPM that was named, where what is asked takes one.

    Whose ``home`` has keys in an HSM is told what to run ``instead`` (``host.by-key``).
    """
    if tpm is not None:
        return tpm
    if instead:
        _refuse_by_key(home, instead)
    raise typer.BadParameter("name this host's TPM, as tpm:", param_hint="--tpm")


def _refuse_by_key(home: Path | None, instead: str) -> None:
    from custody.cli._keystatus import is_key_host

    if is_key_host(open_home(home, "host")):
        raise Refused(
            "this host has no TPM: its keys are in an HSM",
            check="host.by-key",
            hint=f"custody host {instead}",
        )


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be opened, by what, and where everything is to be written."""

    bundle: Path
    request: Path
    tpm: str
    out: Path
    receipt: Path | None
    burn_receipt: Path | None
    answers: list[Path] | None
    base: Path | None
    site: Path | None
    pin_fd: int | None
    env: list[Path] | None
    log: str | None
    home: Path | None
    as_json: bool


def add_opening(app: typer.Typer) -> None:
    """Add opening to the host's verbs."""
    app.command(
        name="open",
        epilog=example(
            "custody host open ./bundle request.dsse --answers ./answers \\",
            "    --tpm tpm: --env ./production --out ./model \\",
            "    --receipt receipt.dsse --burn burn.dsse",
        ),
    )(open_bundle)


def open_bundle(
    bundle: BundleArgument,
    request: RequestArgument,
    out: OutOption,
    tpm: MaybeTpmOption = None,
    receipt: ReceiptOption = None,
    burn_receipt: BurnOption = None,
    answers: AnswersOption = None,
    base: BaseOption = None,
    site: SiteOption = None,
    pin_fd: PinFdOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a released bundle, write a receipt, and burn the request.

    Nothing appears under its name before all of the model has verified.
    """
    opening = Opening(
        bundle=bundle,
        request=request,
        tpm=needed_tpm(tpm, home=home, instead="open-by-key"),
        out=out,
        receipt=receipt,
        burn_receipt=burn_receipt,
        answers=answers,
        base=base,
        site=site,
        pin_fd=pin_fd,
        env=env,
        log=log,
        home=home,
        as_json=as_json,
    )
    with opening_ahead(bundle / _PAYLOAD, out) as ahead:
        from custody.cli._open import open_released

        open_released(opening, ahead)
