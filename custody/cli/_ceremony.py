"""``custody custodian init`` and ``ceremony``: what is done at a table, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._enroll import DisplayOption, NameArgument, ShareKeyOption, show_enrolled
from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutFolderOption,
    PinFdOption,
    TokenOption,
    YesOption,
    example,
    open_home,
)
from custody.cli._shares import check_ready
from custody.cli._table import TerminalTable
from custody.cli._ui import Screen
from custody.encoding import Digest, Record, utc_now
from custody.errors import Incomplete, Refused
from custody.formats.ceremony import (
    PAGE,
    TRANSCRIPT,
    Enrol,
    Invite,
    MakeAuthority,
    Script,
    Seat,
    SplitRecovery,
    Step,
    encode_script,
)
from custody.keys.api import parse_key_uri
from custody.ops.ceremony import hold
from custody.ops.ceremony_steps import words_of
from custody.ops.folders import read_file
from custody.ops.home import Home
from custody.ops.landing import check_absent, write_new_file
from custody.ops.transcript import (
    HeldScript,
    read_script,
    read_script_file,
    read_transcript,
)
from custody.rules.ceremony import progress_of
from custody.rules.ceremony_script import has_words
from custody.rules.verdicts import require

_MAX_ADMISSION_BYTES = 1 << 20

ScriptArgument = Annotated[
    Path, typer.Argument(help="The script (TOML).", metavar="SCRIPT", show_default=False)
]


class HeldView(Record, frozen=True, kw_only=True):
    """What ``ceremony --json`` shows."""

    folder: str
    digest: Digest
    """Of the last record, which everybody signed."""
    policy: Digest | None
    page: str


class ReviewView(Record, frozen=True, kw_only=True):
    """What ``ceremony --review --json`` shows."""

    script: Digest
    environment: str
    title: str
    others: str
    people: tuple[str, ...]
    steps: tuple[str, ...]
    policy: str
    """What came of trying its policy out; "" where none is made."""


def add_ceremony(app: typer.Typer) -> None:
    """Add the verbs of ceremonies to the custodian's."""
    app.command(
        epilog=example(
            "custody custodian init ida --environment production --token pkcs11:token=ida \\",
            "    --authority --out production-start",
        )
    )(init)
    app.command(
        epilog=example(
            "custody custodian ceremony ceremony.toml --review",
            "custody custodian ceremony ceremony.toml --homes ./homes --out ./production-start",
        )
    )(ceremony)


def init(
    name: NameArgument,
    environment: Annotated[
        str, typer.Option("--environment", help="Its name, as production.", metavar="NAME")
    ],
    token: TokenOption,
    out: OutFolderOption,
    authority: Annotated[
        bool, typer.Option("--authority", help="Also keep the certificate authority here.")
    ] = False,
    recoverable: Annotated[
        bool,
        typer.Option(
            "--recoverable", help="The authority's key can be backed up under a recovery key."
        ),
    ] = False,
    share_key: ShareKeyOption = None,
    display: DisplayOption = "",
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin an environment: make your key, an invitation for everybody else, and an authority.

    A ceremony of one person, by a script of its own: it writes a folder with invitation.json (for
    the others), your own admission, with --authority its certificate and first revocation list
    (for the environment's folder), and what was done. Interrupted, it goes on where it was.
    """
    screen = Screen(as_json=as_json)
    where = open_home(home, "custodian")
    if where.has_identity():
        screen.say(
            f"{where.path} has begun already: its keys are kept, the invitation is a new one"
        )
        display = display or where.identity().display
    made = MakeAuthority(by=name, name=f"{environment} authority", recoverable=recoverable)
    steps: list[Step] = [
        Invite(by=name),
        Enrol(who=name, suite=share_key),
        *([made] if authority else []),
    ]
    script = _alone(name, environment, token, display=display, steps=steps)
    _check_over(out)
    held = read_script(encode_script(script))
    with TerminalTable(
        screen, asks=False, homes=lambda _: where, uris={name: token}, pin_fd=pin_fd
    ) as table:
        _hold(held, out, table, beside=Path())
    admission = out / f"{name}.admission.dsse"
    data = read_file(admission, max_bytes=_MAX_ADMISSION_BYTES)
    show_enrolled(screen, where.identity(), admission, data)


def _alone(
    name: str, environment: str, token: str, *, display: str, steps: Sequence[Step]
) -> Script:
    """Write the script of whoever begins alone.  Whatever else his token holds is named."""
    # Where the PIN is read from is not for a transcript.
    uri = str(replace(parse_key_uri(token), pin_source=None))
    return Script(
        kind="custody/ceremony/v1",
        environment=environment,
        title=f"{name} begins {environment}",
        people=(Seat(name=name, role="custodian", token=uri, display=display),),
        steps=tuple(steps),
        others="named",
    )


def ceremony(
    script: ScriptArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The ceremony's folder, new or begun.", metavar="DIR"),
    ] = None,
    homes: Annotated[
        Path | None,
        typer.Option(
            "--homes", help="A private folder with a home for each person.", metavar="DIR"
        ),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", help="Read somebody's PIN from a file.", metavar="NAME=FILE"),
    ] = None,
    so_pin: Annotated[
        list[str] | None,
        typer.Option(
            "--so-pin",
            help="Read the PIN of the security officer of somebody's token from a file.",
            metavar="NAME=FILE",
        ),
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Show what would be done, and do nothing.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hold a ceremony: do a published script step by step, on record.

    Every step is shown, confirmed by the people there, done with their tokens, and signed by them.
    Interrupted, the same command goes on with the next step, after it has checked what was done.
    """
    screen = Screen(as_json=as_json)
    held = read_script_file(script)
    if review:
        _show_review(screen, held, beside=script.parent)
        return
    if out is None or homes is None:
        raise typer.BadParameter("a ceremony is held with both", param_hint="--out, --homes")
    _check_over(out)
    _check_words(held.script)
    # Once it has begun the policy's own step judges its draft, by the keys that there are.
    tried = "" if out.exists() else _rehearsed(held, beside=script.parent)
    uris = {seat.name: seat.token for seat in held.script.people}
    for name, path in _files(held.script, pin, option="--pin").items():
        uris[name] = str(replace(parse_key_uri(uris[name]), pin_source=path))
    folder = Home(homes)
    with TerminalTable(
        screen,
        asks=not yes,
        homes=lambda seat: Home(folder.path / seat.name, role=seat.role),
        uris=uris,
        officers=_files(held.script, so_pin, option="--so-pin"),
    ) as table:
        table.show((*_review_lines(held), *([f"  {tried}"] if tried else [])))
        table.speak("the script", held.digest)
        table.confirm("is this the script that was published?")
        digest = _hold(held, out, table, beside=script.parent)
    policy = progress_of(read_transcript(out)).policy
    view = HeldView(folder=str(out), digest=digest, policy=policy, page=str(out / PAGE))

    def words() -> None:
        screen.show(f"{out}: held, and signed by everybody")
        screen.show(f"to read and print: {view.page}")
        screen.show("its last record, for everybody to write down:")
        screen.show(f"digest {digest}")
        screen.show("to read aloud:")
        screen.speak(digest)

    screen.result(view, words)


def _files(script: Script, given: Sequence[str] | None, *, option: str) -> dict[str, str]:
    """Read ``NAME=FILE``: whose PIN lies where."""
    found = {}
    for each in given or ():
        name, _, source = each.partition("=")
        if name not in {seat.name for seat in script.people}:
            raise typer.BadParameter(f"nobody is called {name!r}", param_hint=option)
        found[name] = str(Path(source).absolute())
    return found


def _check_words(script: Script) -> None:
    """Say before any key is made that words could be neither shown nor typed here."""
    if any(isinstance(step, SplitRecovery) for step in script.steps):
        check_ready()
    if has_words(script):
        from custody.cli._mnemonics import check_terminal

        check_terminal()


def _check_over(out: Path) -> None:
    """Refuse a folder that is no ceremony's, or of one that is over, before anybody is asked."""
    if not (out / TRANSCRIPT).is_file() or (out / PAGE).exists():
        check_absent(out)


def _hold(held: HeldScript, out: Path, table: TerminalTable, *, beside: Path) -> Digest:
    from custody.ops.audit_ceremony import judge_ceremony
    from custody.report.ceremony import render_ceremony

    try:
        digest = hold(held, out, table, beside=beside)
    except Refused as error:
        # Everybody had signed when it was interrupted: nothing but the page is left to make.
        if error.check != "ceremony.over":
            raise
        digest = read_transcript(out)[-1].digest
    judged = judge_ceremony(out, pin=None)
    write_new_file(out / PAGE, render_ceremony(judged))
    # Nobody goes home with a record that every auditor refuses.
    require(judged.verdicts)
    return digest


def _rehearsed(held: HeldScript, *, beside: Path) -> str:
    from custody.ops.ceremony_rehearsal import rehearse

    return rehearse(held, beside=beside, now=utc_now())


def _show_review(screen: Screen, held: HeldScript, *, beside: Path) -> None:
    script = held.script
    try:
        tried = _rehearsed(held, beside=beside)
    except Incomplete as error:
        # Who reads a script that was published need not have its draft.
        tried = f"{error.where} {error.reason}: its policy is not tried out"
    view = ReviewView(
        script=held.digest,
        environment=script.environment,
        title=script.title,
        others=script.others,
        people=tuple(f"{seat.name}, {seat.role}: {seat.token}" for seat in script.people),
        steps=tuple(words_of(script, step) for step in script.steps),
        policy=tried,
    )

    def words() -> None:
        for line in _review_lines(held):
            screen.show(line)
        for number, step in enumerate(view.steps, 1):
            screen.show(f"{number:3} {step}")
        if view.policy:
            screen.show(f"  {view.policy}")
        screen.show(f"digest {held.digest}")
        screen.show("to read aloud:")
        screen.speak(held.digest)

    screen.result(view, words)


def _review_lines(held: HeldScript) -> tuple[str, ...]:
    script = held.script
    lines = [f"ceremony of {script.environment}: {script.title}"]
    for seat in script.people:
        holds = f", which may hold {', '.join(seat.holds)}" if seat.holds else ""
        lines.append(f"  {seat.name}, {seat.role}: {seat.token}{holds}")
    lines.append(f"  objects in a token that nobody expects are {script.others}")
    return tuple(lines)
