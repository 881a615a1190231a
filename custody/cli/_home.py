"""Options that most commands share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli import ROLES
from custody.cli._later import Group, Verbs, later
from custody.encoding import Digest, parse_time, utc_now
from custody.errors import Incomplete, Malformed

if TYPE_CHECKING:  # every format there is, for commands that read none
    from custody.formats.case import Documents
    from custody.ops.home import Home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="CUSTODY_HOME",
        help="Your private state  [default: ~/.local/state/custody/ROLE]",
        show_default=False,
        metavar="DIR",
    ),
]
EnvOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--env",
        envvar="CUSTODY_ENV",
        help="Public files of the environment (needed): *.dsse, *.cer, *.crl; may be repeated.",
        metavar="DIR",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
PinFdOption = Annotated[
    int | None,
    typer.Option("--pin-fd", help="Read the PIN from this descriptor.", metavar="N"),
]
TokenOption = Annotated[
    str,
    typer.Option("--token", help="Your token: a pkcs11: or tpm: URI.", metavar="URI"),
]
TpmOption = Annotated[
    str,
    typer.Option(
        "--tpm",
        envvar="CUSTODY_TPM",
        help="This host's TPM: a tpm: URI.",
        metavar="URI",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", help="Where to write; never overwrites.", metavar="PATH"),
]
OutFolderOption = Annotated[
    Path,
    typer.Option(
        "--out", help="The folder to write into; no file there is overwritten.", metavar="DIR"
    ),
]
LabOption = Annotated[
    Path,
    typer.Option(
        "--lab",
        envvar="CUSTODY_LAB",
        help="The lab's directory.",
        metavar="DIR",
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(help="The bundle, or a folder with its manifest.", metavar="BUNDLE")
]
AnswersOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--answers",
        help="Folder of consents, approvals and denials; may be repeated.",
        metavar="DIR",
    ),
]
SiteOption = Annotated[
    Path | None,
    typer.Option(
        "--site",
        envvar="CUSTODY_SITE",
        help="Home of this site's keys, for a bundle that takes its HSM  [default: --home]",
        show_default=False,
        metavar="DIR",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def role_app(role: str, *lines: str, verbs: Sequence[Verbs] = ()) -> typer.Typer:
    """Return the app of a role; ``lines`` are its example, ``verbs`` its commands."""
    app = typer.Typer(
        name=role,
        cls=later(*verbs) if verbs else Group,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=ROLES[role],
        epilog=example(*lines),
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    # With a callback a role is a group of commands even while it has only one.
    @app.callback()
    def _role() -> None:
        pass

    return app


def example(*lines: str) -> str:
    """Write the example that ends every help text."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def open_home(path: Path | None, role: str) -> Home:
    """Open the home that was named, or the usual one of a role."""
    from custody.ops.home import Home

    if path is not None:
        return Home(path, role=role)
    base = os.environ.get("XDG_STATE_HOME")
    state = Path(base) if base else Path.home() / ".local" / "state"
    return Home(state / "custody" / role, role=role)


def read_env(folders: Sequence[Path] | None, *more: Path) -> Documents:
    """Read the public files of the environment, and more beside them."""
    from custody.ops.folders import read_folder

    if not folders and not more:
        raise Incomplete(
            "no folder of public files was named",
            missing=("the environment's folder",),
            hint="name it with --env DIR, or in CUSTODY_ENV",
        )
    return read_folder(*(folders or ()), *more)


def moment(text: str | None, *, option: str = "TIME") -> datetime:
    """Read a time that was given (RFC 3339 UTC, or a day, which begins there), or the clock."""
    if text is None:
        return utc_now()
    try:
        return parse_time(f"{text}T00:00:00Z" if len(text) == len("2027-01-05") else text)
    except Malformed as error:
        raise typer.BadParameter(
            f"{text!r} is no time: write 2027-01-05T12:00:00Z, or a day, 2027-01-05 (both UTC)",
            param_hint=option,
        ) from error


def read_digest(text: str, *, option: str = "DIGEST") -> Digest:
    """Read a digest as a person types or pastes it: with spaces, in either case."""
    digest = "".join(text.split()).lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise typer.BadParameter(f"{text[:80]!r} is no digest of 64 hex digits", param_hint=option)
    return digest
