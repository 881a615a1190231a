"""``custody auditor``: verify what happened, with no hardware."""

from __future__ import annotations

from typing import Annotated

import typer

from custody.cli._case import (
    AtOption,
    CaseArgument,
    ContentsOption,
    PolicyPinOption,
    TsaRootOption,
    audit,
)
from custody.cli._home import HomeOption, JsonOption, PinFdOption, example, role_app
from custody.cli._later import Verbs
from custody.cli._log import LogOption
from custody.cli._model import add_verify_model
from custody.cli._ui import EXIT_REFUSED, Screen


def _enroll(app: typer.Typer) -> None:
    from custody.cli._enroll import add_enroll

    add_enroll(app, "auditor")


def _prove(app: typer.Typer) -> None:
    from custody.cli._prove import add_prove

    add_prove(app, "auditor")


def _trust(app: typer.Typer) -> None:
    from custody.cli._trust import add_trust

    add_trust(app, "auditor")


def _collect(app: typer.Typer) -> None:
    from custody.cli._collect import add_collect

    add_collect(app)


def _holdings(app: typer.Typer) -> None:
    from custody.cli._holdings import add_holdings

    add_holdings(app)


def _report(app: typer.Typer) -> None:
    from custody.cli._report import add_report

    add_report(app)


def _timestamp(app: typer.Typer) -> None:
    from custody.cli._timestamp import add_timestamp

    add_timestamp(app)


def _verify_ceremony(app: typer.Typer) -> None:
    from custody.cli._verify_ceremony import add_verify_ceremony

    add_verify_ceremony(app)


def _question(name: str) -> Verbs:
    def add(app: typer.Typer) -> None:
        from custody.cli import _questions

        getattr(_questions, f"add_{name.replace('-', '_')}")(app)

    return Verbs((name,), add)


def _overdue(app: typer.Typer) -> None:
    from custody.cli._overdue import add_overdue

    add_overdue(app)


def _export(app: typer.Typer) -> None:
    from custody.cli._export import add_export

    add_export(app)


app = role_app(
    "auditor",
    "custody auditor trust 3f9c…e1 --env ./production",
    "custody auditor verify ./case --policy-pin 3f9c…e1",
    verbs=(
        Verbs(("enroll",), _enroll),
        Verbs(("prove",), _prove),
        Verbs(("trust",), _trust),
        Verbs(("collect",), _collect),
        Verbs(("report",), _report),
        Verbs(("who-can-open", "ever-held"), _holdings),
        Verbs(("timestamp",), _timestamp),
        Verbs(("verify-ceremony",), _verify_ceremony),
        *(_question(name) for name in ("list", "show", "who-approved")),
        Verbs(("overdue",), _overdue),
        _question("since"),
        Verbs(("export",), _export),
    ),
)
add_verify_model(app)


@app.command(
    epilog=example(
        "custody auditor verify gpu-7.case --policy-pin 3f9c…e1",
        "custody auditor verify ./case --policy-pin 3f9c…e1 --at 2027-01-05T12:00:00Z --json",
        "custody auditor verify ./case --contents ./bundle --checks",
    )
)
def verify(
    case: CaseArgument,
    policy_pin: PolicyPinOption = None,
    at: AtOption = None,
    contents: ContentsOption = None,
    tsa_root: TsaRootOption = None,
    checks: Annotated[
        bool, typer.Option("--checks", help="Show also the checks that hold.")
    ] = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every release of a case again, from its files alone.

    A case is a file that collect wrote; or a request, its manifest, answers and receipt, and the
    folder of the environment's public files beside them.

    A collected file is judged as a whole too: what is missing from it, or does not belong in it,
    is named.  Exit code 0 only if every check of every release holds.
    """
    from custody.cli import _audit_words

    screen = Screen(as_json=as_json)
    report = audit(
        screen,
        case,
        policy_pin=policy_pin,
        at=at,
        contents=contents,
        home=home,
        pin_fd=pin_fd,
        log=log,
        tsa_root=tsa_root,
    )
    screen.result(
        _audit_words.audit_view(report),
        lambda: _audit_words.show_audit(screen, report, checks=checks),
    )
    _audit_words.say_what_is_lacking(screen, report)
    if not report.sound:
        raise typer.Exit(EXIT_REFUSED)
