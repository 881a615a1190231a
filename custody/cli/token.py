"""``custody token``: see what a token is, what it can do and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import JsonOption, PinFdOption, example, role_app
from custody.cli._kek import add_kek
from custody.cli._ui import Screen, to_json
from custody.cli._wiring import audit_token, list_tokens, probe_token
from custody.encoding import Record
from custody.errors import Refused
from custody.keys.api import PinState, SeenToken
from custody.keys.audit import AuditReport, Finding
from custody.keys.probe import MEASURES, Fitness, ProbeReport
from custody.ops.landing import check_absent, write_new_file

_PIN: dict[PinState, str] = {
    "unset": "not set",
    "right": "ok",
    "low": "wrong ones given",
    "final-try": "one try left",
    "locked": "locked",
}
_ANSWERS = {"yes": "yes", "no": "NO", "untested": "--"}
_DUTIES = {
    "officer": "an officer's",
    "publisher": "a publisher's",
    "site": "a site's",
    "ca": "a certificate authority's",
    "kek": "one that keeps key-encryption keys",
}
_VERDICTS = {"can": "can be", "cannot": "cannot be", "not-shown": "was not shown to be"}

UriArgument = Annotated[
    str,
    typer.Argument(help="The token: a pkcs11: URI that one token matches, or tpm:.", metavar="URI"),
]

app = role_app(
    "token",
    "custody token list",
    "custody token probe pkcs11:token=alice?module-name=softhsm2",
    "custody token audit pkcs11:token=alice?module-name=softhsm2",
)


class ListView(Record, frozen=True):
    """What ``list --json`` shows."""

    tokens: tuple[SeenToken, ...]
    silent: tuple[str, ...]
    """Libraries that are here and did not answer."""


@app.command(
    "list",
    epilog=example("custody token list", "custody token list pkcs11:?module-name=opensc"),
)
def list_(
    uri: Annotated[
        str | None,
        typer.Argument(
            help="A pkcs11: URI that narrows the list, or tpm:  [default: every known library]",
            show_default=False,
            metavar="URI",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens this machine sees, and how each is named.  No PIN is asked."""
    screen = Screen(as_json=as_json)
    tokens, silent = list_tokens(uri)

    def words() -> None:
        if not tokens:
            screen.show("no token is there")
            return
        rows = [
            (
                token.uri,
                token.model,
                token.profile,
                token.token_class,
                ("pinpad, " if token.pinpad else "") + _PIN[token.pin],
            )
            for token in tokens
        ]
        screen.table(("token", "model", "profile", "class", "PIN"), rows)

    screen.result(ListView(tokens=tokens, silent=silent), words)
    for line in silent:
        screen.say(f"no answer from {line}")


@app.command(
    epilog=example(
        "custody token probe pkcs11:token=alice?module-name=softhsm2",
        "custody token probe pkcs11:token=alice?module-name=softhsm2 --out alice.probe.json",
    )
)
def probe(
    uri: UriArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the report here too; never overwrites.", metavar="FILE"),
    ] = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what a token really does, with throw-away keys, and say what it can be used for."""
    if out is not None:
        check_absent(out)
    screen = Screen(as_json=as_json)
    report = probe_token(
        uri,
        pin_fd=pin_fd,
        begun=lambda: screen.say("making throw-away keys; RSA keys in a slow token take a while"),
    )
    if out is not None:
        write_new_file(out, (to_json(report) + "\n").encode())
    screen.result(report, lambda: _show_probe(screen, report))


def _show_probe(screen: Screen, report: ProbeReport) -> None:
    screen.show(f"{report.manufacturer} {report.model}, serial {report.serial}")
    screen.show(f"library {report.library}, profile {report.profile}")
    screen.show()
    rows = [(_ANSWERS[item.answer], MEASURES[item.id], item.detail) for item in report.measured]
    screen.table(("", "the token", "it answered"), rows)
    screen.show()
    for difference in report.differences:
        screen.show(
            f"{difference.id}: {difference.found}, where its profile has {difference.expected}"
            f" ({difference.source})"
        )
    if not report.differences and report.profile != "unknown":
        screen.show("as its profile says")
    for fit in report.fitness:
        _show_fitness(screen, fit)
    if report.token_class == "software":  # noqa: S105  a class of token, not a password
        screen.show("whoever reads its files has its keys: for laptops and tests")


def _show_fitness(screen: Screen, fit: Fitness) -> None:
    screen.show(f"this token {_VERDICTS[fit.verdict]} {_DUTIES[fit.duty]}, because it")
    for reason in fit.because:
        screen.show(f"  {reason}")


@app.command(epilog=example("custody token audit pkcs11:token=alice?module-name=softhsm2"))
def audit(uri: UriArgument, pin_fd: PinFdOption = None, as_json: JsonOption = False) -> None:
    """List what a token holds, and refuse keys that may do more than one thing should."""
    screen = Screen(as_json=as_json)
    report = audit_token(uri, pin_fd=pin_fd)
    screen.result(report, lambda: _show_audit(screen, report))
    weak = [finding for finding in report.findings if finding.weak]
    if weak:
        names = ", ".join(sorted({finding.name for finding in weak}))
        raise Refused(
            f"{len(weak)} weak combinations: {names}",
            check="token.audit",
            where=f"token {report.label}",
            hint="destroy these keys and make new ones with custody",
        )


def _show_audit(screen: Screen, report: AuditReport) -> None:
    if not report.objects:
        screen.show("the token is empty")
        return
    rows = [
        (item.kind, item.type, item.label, item.role or "--", " ".join(item.flags).lower())
        for item in report.objects
    ]
    screen.table(("object", "type", "label", "role", "may, is"), rows)
    for finding in report.findings:
        _show_finding(screen, finding)
    if not report.findings:
        screen.show("nothing weak was found")


def _show_finding(screen: Screen, finding: Finding) -> None:
    mark = "NO " if finding.weak else "-- "
    screen.show(f"{mark} {finding.name:24} {finding.subject}: {finding.says}")


add_kek(app)
