"""``custody enroller``: vouch for hosts and their boot states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._anew import judged_anew
from custody.cli._authorise import add_authorise
from custody.cli._enroll import add_enroll
from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    YesOption,
    example,
    open_home,
    role_app,
)
from custody.cli._later import Verbs
from custody.cli._log import LogOption, offer
from custody.cli._retire import add_retire
from custody.cli._trust import add_trust
from custody.cli._ui import Screen
from custody.cli._vouching import (
    InventoryOption,
    OntoOption,
    RequestArgument,
    say_whom,
    show_signed,
    signing,
    situation_of,
)
from custody.cli._wiring import credential_maker
from custody.encoding import Digest, Record, encode
from custody.formats.enrolment import Answer, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Predicate, decode_statement
from custody.formats.goldenset import GoldenSet
from custody.formats.measurement import Measurement
from custody.formats.policy import TpmClass
from custody.ops import enroll as hosts
from custody.ops.files import read_record
from custody.ops.folders import read_statement_file
from custody.ops.golden import approve_state, authorise_state
from custody.ops.inventory import read_inventory
from custody.ops.landing import check_absent, write_new_file
from custody.rules.situation import Situation
from custody.rules.trust import count_signers

_MAX_MEASUREMENT_BYTES = 2 << 20


def _serve(app: typer.Typer) -> None:
    from custody.cli._serve import add_serve

    add_serve(app)


def _ca(app: typer.Typer) -> None:
    from custody.cli._ca import ca_app

    app.add_typer(ca_app, name="ca")


app = role_app(
    "enroller",
    "custody enroller challenge gpu-7.enrolment.json --inventory inventory.txt \\",
    "    --env ./production --out erik.challenge.json",
    "custody enroller record gpu-7.enrolment.json --answer erik.answer.json \\",
    "    --inventory inventory.txt --trust-class hardware --env ./production \\",
    "    --out gpu-7.enrolment.dsse",
    verbs=(Verbs(("serve", "sign"), _serve), Verbs(("ca",), _ca)),
)


class Vouched(Record, frozen=True, kw_only=True):
    """What ``record --json`` and ``golden --json`` show."""

    file: str
    digest: Digest
    signed: tuple[str, ...]
    missing: int


@app.command(
    epilog=example(
        "custody enroller challenge gpu-7.enrolment.json --inventory inventory.txt \\",
        "    --env ./production --out erik.challenge.json",
    )
)
def challenge(
    request: RequestArgument,
    inventory: InventoryOption,
    out: OutOption,
    env: EnvOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a host's request and challenge its TPM."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, "enroller")
    made = hosts.challenge(
        where,
        read_record(EnrolmentRequest, request),
        situation=situation_of(where, env),
        inventory=read_inventory(inventory),
        make_credential=credential_maker(),
    )
    write_new_file(out, encode(made.challenge))

    def words() -> None:
        screen.verdicts(made.verdicts)
        screen.show(str(out))

    screen.result({"file": str(out), "verdicts": made.verdicts}, words)


@app.command(
    epilog=example(
        "custody enroller record gpu-7.enrolment.json --answer erik.answer.json \\",
        "    --inventory inventory.txt --trust-class hardware --env ./production \\",
        "    --out gpu-7.enrolment.dsse",
    )
)
def record(
    request: RequestArgument,
    answer: Annotated[
        Path, typer.Option("--answer", help="The host's answer to your challenge.", metavar="FILE")
    ],
    inventory: InventoryOption,
    trust_class: Annotated[
        TpmClass, typer.Option("--trust-class", help="What kind of TPM this is.")
    ],
    out: OutOption,
    onto: OntoOption = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Vouch for a host whose answer is right.  Each challenge is good for one answer."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, "enroller")
    asked = read_record(EnrolmentRequest, request)
    given = read_record(Answer, answer)
    situation = situation_of(where, env)
    say_whom(screen, asked, trust_class, situation)
    screen.confirm("vouch for it?", yes=yes)
    with signing(where, pin_fd) as signer:
        situation = judged_anew(screen, where, situation)
        signed = hosts.record(
            where,
            asked,
            given,
            signer=signer,
            situation=situation,
            inventory=read_inventory(inventory),
            trust_class=trust_class,
            onto=None if onto is None else read_statement_file(EnrolmentRecord, onto),
        )
    write_new_file(out, signed)
    needed = situation.trusted.policy.thresholds.enrolment
    _show(screen, EnrolmentRecord, signed, situation, needed=needed, out=out)
    offer(screen, situation.trusted.policy, log, [signed])


@app.command(
    epilog=example(
        "custody enroller golden gpu-7.boot.json --name kernel-6.12.9 --epoch 1 \\",
        "    --env ./production --out kernel-6.12.9.dsse",
        "custody enroller golden gpu-8.boot.json --onto kernel-6.12.9.dsse \\",
        "    --env ./production --out production/kernel-6.12.9.dsse \\",
        "    --authorise production/elsa-kernel-6.12.9.authorisation.dsse",
    )
)
def golden(
    measurement: Annotated[
        Path, typer.Argument(help="What a host measured.", metavar="FILE", show_default=False)
    ],
    out: OutOption,
    name: Annotated[str, typer.Option("--name", help="What to call this boot state.")] = "",
    epoch: Annotated[
        int, typer.Option("--epoch", help="Grows by each set of a name.", metavar="N", min=1)
    ] = 1,
    oldest: Annotated[
        int | None,
        typer.Option(
            "--oldest",
            help="The oldest epoch that stays good; without it, this one.",
            metavar="N",
            min=1,
        ),
    ] = None,
    notes: Annotated[str, typer.Option("--notes", help="Words for people.")] = "",
    onto: OntoOption = None,
    authorise: Annotated[
        Path | None,
        typer.Option(
            "--authorise", help="Also let kept keys open in it, by this file.", metavar="FILE"
        ),
    ] = None,
    env: EnvOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vouch for a boot state you know to be right; with --onto only its signature is new.

    What it says is then the first enroller's: name, notes, --epoch and --oldest.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    if authorise is not None:
        check_absent(authorise)
    where = open_home(home, "enroller")
    measured = read_record(Measurement, measurement, max_bytes=_MAX_MEASUREMENT_BYTES)
    first = None if onto is None else read_statement_file(GoldenSet, onto)
    if first is None and not name:
        raise typer.BadParameter("a new golden set has a name", param_hint="--name")
    if first is not None:
        _check_same(first.predicate, name=name, notes=notes, epoch=epoch, oldest=oldest)
    situation = situation_of(where, env)
    leave = b""
    with signing(where, pin_fd) as signer:
        situation = judged_anew(screen, where, situation)
        signed = approve_state(
            measured,
            signer=signer,
            situation=situation,
            name=name if first is None else first.predicate.name,
            notes=notes if first is None else first.predicate.notes,
            epoch=epoch if first is None else first.predicate.epoch,
            oldest=oldest if first is None else first.predicate.oldest,
            onto=first,
        )
        if authorise is not None:
            made = decode_statement(GoldenSet, signed)
            leave = authorise_state(made, signer=signer, situation=situation)
    write_new_file(out, signed)
    if authorise is not None:
        write_new_file(authorise, leave)
    needed = situation.trusted.policy.thresholds.golden
    _show(screen, GoldenSet, signed, situation, needed=needed, out=out)
    offer(screen, situation.trusted.policy, log, [signed, leave] if authorise else [signed])


def _check_same(first: GoldenSet, *, name: str, notes: str, epoch: int, oldest: int | None) -> None:
    """Refuse options that say otherwise than the set the signature is added to."""
    same = {
        "--name": name in ("", first.name),
        "--notes": notes in ("", first.notes),
        "--epoch": epoch in (1, first.epoch),
        "--oldest": oldest in (None, first.oldest),
    }
    for option, is_same in same.items():
        if not is_same:
            raise typer.BadParameter("the set of --onto says otherwise", param_hint=option)


def _show(
    screen: Screen,
    kind: type[Predicate],
    signed: bytes,
    situation: Situation,
    *,
    needed: int,
    out: Path,
) -> None:
    statement = decode_statement(kind, signed)
    count = count_signers(
        statement.envelope, situation.trusted.policy, role="enroller", needed=needed
    )
    shown = Vouched(
        file=str(out), digest=statement.digest, signed=count.signers, missing=count.missing
    )
    show_signed(screen, shown, out, count)


add_authorise(app)
add_retire(app)
add_enroll(app, "enroller")
add_trust(app, "enroller")
