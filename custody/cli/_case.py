"""What the auditor's commands share: a case, what to judge it by, and the judging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._home import moment, open_home, read_digest
from custody.cli._ui import Screen
from custody.encoding import Digest
from custody.errors import Incomplete

if TYPE_CHECKING:
    from custody.formats.case import Documents
    from custody.formats.state import EnrolmentMemory
    from custody.ops.audit import AuditReport
    from custody.ops.audit_contents import OpenedContents

CaseArgument = Annotated[
    list[Path],
    typer.Argument(help="The case: collected files, folders, single files.", metavar="CASE"),
]
PolicyPinOption = Annotated[
    str | None,
    typer.Option(
        "--policy-pin",
        help="Digest of a policy you trust, learnt from a person and not from the case"
        "  [default: what you pinned with trust]",
        metavar="DIGEST",
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Judge at this time  [default: log time, else the time the statements claim]",
        metavar="TIME",
    ),
]
ContentsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--contents",
        help="Also open what this bundle of the case holds, with your token; may be repeated.",
        metavar="BUNDLE",
    ),
]

TsaRootOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--tsa-root",
        help="Believe time-stamping authorities under this certificate; may be repeated.",
        metavar="FILE",
    ),
]


def audit(
    screen: Screen,
    case: Sequence[Path],
    *,
    policy_pin: str | None,
    at: str | None,
    contents: Sequence[Path] | None,
    home: Path | None,
    pin_fd: int | None,
    log: str | None = None,
    tsa_root: Sequence[Path] | None = None,
) -> AuditReport:
    """Judge a case as the options say."""
    from custody.ops.audit_home import audit_from_home
    from custody.ops.collect import audit_files, read_case
    from custody.ops.trust import remember_retired
    from custody.transports.api import open_source

    pin, when = pinned(screen, policy_pin, home), moment(at, option="--at") if at else None
    found = read_case(*case)
    opened = _open_contents(contents, found.documents, home, pin_fd) if contents else ()
    retired: tuple[EnrolmentMemory, ...] = ()
    # Who brings his pin along, and names no home, leaves no trace here.
    if policy_pin is not None and home is None and log is None:
        return audit_files(found, pin=pin, at=when, contents=opened, tsa_roots=tsa_roots(tsa_root))
    where = open_home(home, "auditor")
    if where.has_memory() and where.memory().pin == pin:
        remember_retired(where, documents=found.documents, now=moment(None))
        retired = where.memory().enrolments
    return audit_from_home(
        where,
        found,
        pin=pin,
        at=when,
        contents=opened,
        retired=retired,
        source=None if log is None else open_source(log),
        tsa_roots=tsa_roots(tsa_root),
    )


def pinned(screen: Screen, given: str | None, home: Path | None) -> Digest:
    """Take the pin from who runs the command, or from what he pinned; never from the case."""
    if given is not None:
        return read_digest(given, option="--policy-pin")
    where = open_home(home, "auditor")
    if not where.has_memory():
        raise Incomplete(
            "there is nothing to judge by",
            missing=("a policy digest, told by a person",),
            hint="give it with --policy-pin, or once: custody auditor trust DIGEST --env DIR",
        )
    pin = where.memory().pin
    screen.say(f"judged by the pin of {where.path}")
    return pin


def _open_contents(
    bundles: Sequence[Path], documents: Documents, home: Path | None, pin_fd: int | None
) -> tuple[OpenedContents, ...]:
    """Open the sealed contents of bundles with the auditor's, or an officer's, own token."""
    from custody.cli._session import unlocked
    from custody.ops.audit_contents import open_contents
    from custody.ops.bundle import Bundle

    found = [Bundle.at(path) for path in bundles]
    with unlocked(open_home(home, "auditor"), pin_fd) as keys:
        return tuple(open_contents(b, keys.opener_for(b), documents) for b in found)


def tsa_roots(paths: Sequence[Path] | None) -> tuple[bytes, ...]:
    """Read the certificates of time-stamping authorities that are believed, PEM or DER."""
    if not paths:
        return ()
    from custody.ops.pem import read_certificates

    return read_certificates(paths)
