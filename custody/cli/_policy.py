"""``custody custodian policy``: draft, sign and show policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    YesOption,
    example,
    moment,
    open_home,
)
from custody.cli._later import Group
from custody.cli._log import LogOption, offer
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.encoding import Digest, Record, key_id
from custody.formats.case import Documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.policy import Policy
from custody.ops import admit as people
from custody.ops import policies as ops
from custody.ops.actor import signer_of
from custody.ops.folders import read_folder, read_statement_file, reading
from custody.ops.foresee import Foreseen, foresee
from custody.ops.landing import check_absent, write_new_file
from custody.rules.verdicts import passed, require

policy_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Draft, sign and show policies.",
    epilog=example("custody custodian policy show production/policy-1.dsse"),
)

PolicyArgument = Annotated[
    Path, typer.Argument(help="A policy (.dsse).", metavar="FILE", show_default=False)
]
PreviousOption = Annotated[
    Path | None,
    typer.Option("--previous", help="The version before it.", metavar="FILE"),
]


KnownOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--env",
        envvar="CUSTODY_ENV",
        help="Public files of the environment  [default: the folder of --previous]",
        show_default=False,
        metavar="DIR",
    ),
]


class Signers(Record, frozen=True, kw_only=True):
    """Who of one version's custodians signed."""

    custodians_of: str
    needed: int
    signed: tuple[str, ...]
    missing: int


class Shown(Record, frozen=True, kw_only=True):
    """What ``policy show --json`` shows."""

    environment: str
    version: int
    digest: Digest
    sound: bool
    complete: bool
    signers: tuple[Signers, ...]
    says: tuple[str, ...]
    changes: tuple[str, ...]
    follows: tuple[str, ...]
    """What would follow for people and bundles; empty where no files were there to tell by."""


@policy_app.command(
    epilog=example(
        "custody custodian policy propose draft.toml *.admission.dsse --out policy-1.dsse",
    )
)
def propose(
    draft: Annotated[
        Path, typer.Argument(help="The draft (TOML).", metavar="DRAFT", show_default=False)
    ],
    out: OutOption,
    admissions: Annotated[
        list[Path] | None,
        typer.Argument(help="Admissions of who joins.", metavar="ADMISSION"),
    ] = None,
    admission: Annotated[
        list[Path] | None,
        typer.Option("--admission", help="As ADMISSION; may be repeated.", metavar="FILE"),
    ] = None,
    previous: PreviousOption = None,
    env: KnownOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a policy from a draft and the admissions of its people, and sign it first.

    Refused: one by which too few people with good keys would be left to release, or to change it.
    """
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, "custodian")
    joining = (*(admissions or ()), *(admission or ()))
    old = _previous(previous)
    drafted, identity = ops.read_draft(draft), where.identity()
    who = [people.check(where, path).principal for path in joining]

    def judged() -> tuple[Policy, Foreseen]:
        policy = ops.build_policy(
            drafted, folder=draft.parent, people=who, previous=old, now=moment(None)
        )
        foreseen = _foreseen(policy, old, previous, env)
        require(foreseen.verdicts)
        return policy, foreseen

    judged()
    with open_token(identity.token, pin_fd=pin_fd) as opened, opened.session():
        signer = signer_of(identity, opened)
        # Once more: it is dated, and good, as of the PIN.
        policy, foreseen = judged()
        signed = ops.propose(policy, signer=signer, previous=old)
    write_new_file(out, signed)
    _show(screen, decode_statement(Policy, signed), old, foreseen)
    offer(screen, policy, log, [signed])


@policy_app.command(
    epilog=example("custody custodian policy sign policy-1.dsse --out production/policy-1.dsse")
)
def sign(
    policy: PolicyArgument,
    out: OutOption,
    previous: PreviousOption = None,
    env: KnownOption = None,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read what a policy says and what it changes, and add your signature."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    statement, old = read_statement_file(Policy, policy), _previous(previous)
    identity = open_home(home, "custodian").identity()
    with reading(policy):
        ops.check_unsigned(statement, key_id(identity.signing_spki))
    foreseen = _foreseen(statement.predicate, old, previous, env)
    for line in _words(ops.view(statement, previous=old), foreseen):
        screen.say(line)
    require(foreseen.verdicts)
    screen.confirm("sign it?", yes=yes)
    with open_token(identity.token, pin_fd=pin_fd) as opened, opened.session():
        signer = signer_of(identity, opened)
        # Certificates by which people would be left may have ended at the question.
        foreseen = _foreseen(statement.predicate, old, previous, env)
        require(foreseen.verdicts)
        signed = ops.add_signature(statement, signer=signer, previous=old, now=moment(None))
    write_new_file(out, signed)
    _show(screen, decode_statement(Policy, signed), old, foreseen, brief=True)
    offer(screen, statement.predicate, log, [signed])


@policy_app.command(epilog=example("custody custodian policy show production/policy-1.dsse"))
def show(
    policy: PolicyArgument,
    previous: PreviousOption = None,
    env: KnownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a policy says, who signed it and who is missing.  Nothing is judged by a pin."""
    statement = read_statement_file(Policy, policy)
    old = _previous(previous)
    foreseen = _foreseen(statement.predicate, old, previous, env)
    _show(Screen(as_json=as_json), statement, old, foreseen)


def _previous(path: Path | None) -> Statement[Policy] | None:
    return None if path is None else read_statement_file(Policy, path)


def _foreseen(
    policy: Policy,
    old: Statement[Policy] | None,
    previous: Path | None,
    env: Sequence[Path] | None,
) -> Foreseen:
    """Say what would follow from a policy, by the environment's files."""
    folders = env or ([previous.parent] if previous is not None else [])
    known = read_folder(*folders) if folders else Documents()
    return foresee(policy, previous=old, known=known, now=moment(None))


def _show(
    screen: Screen,
    statement: Statement[Policy],
    previous: Statement[Policy] | None,
    foreseen: Foreseen,
    *,
    brief: bool = False,
) -> None:
    view = ops.view(statement, previous=previous)
    shown = Shown(
        environment=view.policy.environment,
        version=view.policy.version,
        digest=view.digest,
        sound=passed(view.verdicts),
        complete=view.complete,
        signers=tuple(
            Signers(
                custodians_of=label,
                needed=signed.needed,
                signed=signed.signers,
                missing=signed.missing,
            )
            for label, signed in view.signed
        ),
        says=view.words,
        changes=view.changes,
        follows=foreseen.words,
    )

    def words() -> None:
        for line in _signing(view) if brief else _words(view, foreseen):
            screen.show(line)
        screen.show(f"digest {view.digest}")
        screen.show("to read aloud:")
        screen.speak(view.digest)

    screen.result(shown, words)


def _words(view: ops.PolicyView, foreseen: Foreseen) -> tuple[str, ...]:
    faults = [f"unsound: {v.reason}" for v in view.verdicts if v.outcome == "fail"]
    faults += [f"locks out: {v.reason}" for v in foreseen.verdicts if v.outcome == "fail"]
    changes = ("what changes:", *(f"  {line}" for line in view.changes)) if view.changes else ()
    follows = ("what follows:", *(f"  {line}" for line in foreseen.words)) if foreseen.words else ()
    return (*view.words, *changes, *follows, *faults, *_signing(view))


def _signing(view: ops.PolicyView) -> tuple[str, ...]:
    return tuple(
        f"custodians of {label}: {len(signed.signers)} of {signed.needed} signed"
        f" ({', '.join(signed.signers) or 'nobody'})"
        for label, signed in view.signed
    )
