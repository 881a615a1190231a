"""Questions to an archive of collected files: what is there, what happened, what lingers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from custody.cli._case import PolicyPinOption, TsaRootOption, pinned, tsa_roots
from custody.cli._history import linked, remembered, retired, say_histories
from custody.cli._home import HomeOption, JsonOption, example, moment
from custody.cli._ui import EXIT_REFUSED, Screen
from custody.encoding import Record, format_time

if TYPE_CHECKING:
    from custody.formats.logentry import LogEntry
    from custody.ops.archive import Archive

#: As much of a digest as commands take.
_SHORT = 8
_BUCKETS = ("s3://", "gs://", "az://")

ArchiveArgument = Annotated[
    list[str],
    typer.Argument(
        help="Collected files, folders of them, or s3://, gs://, az://.", metavar="ARCHIVE"
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", help="Judge as of this time  [default: now]", metavar="TIME"),
]
LogOption = Annotated[
    str | None,
    typer.Option("--log", help="Name also what this log has and no file shows.", metavar="LOG"),
]


class ReleaseLine(Record, frozen=True):
    """What ``list`` shows of a release."""

    request: str
    manifest: str
    host: str
    publisher: str
    outcome: str
    sound: bool
    at: datetime
    time: str
    file: str


class AnswerLine(Record, frozen=True):
    """What ``who-approved`` shows of an answer."""

    officer: str
    answer: str
    at: datetime
    host: str
    request: str
    manifest: str
    knew: str
    note: str
    outcome: str
    sound: bool
    file: str


class OverdueLine(Record, frozen=True):
    """What ``overdue`` shows."""

    kind: str
    since: datetime
    due: bool
    who: str
    what: str
    do: str
    digest: str | None


def add_list(app: typer.Typer) -> None:
    """Add ``list``."""
    app.command(name="list", epilog=example("custody auditor list ./archive"))(list_releases)


def add_show(app: typer.Typer) -> None:
    """Add ``show``."""
    app.command(epilog=example("custody auditor show ./archive 7a1970b7"))(show)


def add_who_approved(app: typer.Typer) -> None:
    """Add ``who-approved``."""
    app.command(
        name="who-approved",
        epilog=example("custody auditor who-approved ./archive --host gpu-7"),
    )(who_approved)


def add_overdue(app: typer.Typer) -> None:
    """Add ``overdue``."""
    app.command(
        epilog=example(
            "custody auditor overdue ./archive",
            "custody auditor overdue s3://evidence/custody --log https://log.example.com/models",
        )
    )(overdue)


def add_since(app: typer.Typer) -> None:
    """Add ``since``."""
    app.command(epilog=example("custody auditor since 2027-01-01T00:00:00Z ./archive"))(since)


def add_export(app: typer.Typer) -> None:
    """Add ``export``."""
    app.command(
        epilog=example("custody auditor export ./archive --as in-toto --out all.intoto.jsonl")
    )(export)


def list_releases(
    archive: ArchiveArgument,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every release, the oldest first, each judged as ``verify`` does.

    Exit code 0 only if every one is sound.
    """
    screen = Screen(as_json=as_json)
    found = opened(screen, archive, policy_pin, home, tsa_root)
    rows = [
        ReleaseLine(
            request=release.request,
            manifest=release.manifest,
            host=release.host,
            publisher=release.publisher,
            outcome=release.outcome,
            sound=held.holds(release),
            at=release.at,
            time=release.time,
            file=held.name,
        )
        for held, release in found.releases()
    ]
    cells = [
        (
            row.request[:_SHORT],
            row.host,
            row.outcome if row.sound else f"{row.outcome}, NOT SOUND",
            format_time(row.at),
            row.time,
            row.file,
        )
        for row in rows
    ]
    heads = ("request", "host", "outcome", "judged at", "time", "file")
    screen.result(rows, lambda: _table(screen, heads, cells))
    if _broken(found) or not all(row.sound for row in rows):
        raise typer.Exit(EXIT_REFUSED)


def show(
    archive: ArchiveArgument,
    request: Annotated[
        str, typer.Argument(help="The request's digest, or how it begins.", metavar="REQUEST")
    ],
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell one release in order: who did and knew what, who vouches for it, what is missing."""
    from custody.cli import _audit_words
    from custody.cli._words import plain

    screen = Screen(as_json=as_json)
    held, release = opened(screen, archive, policy_pin, home, tsa_root).find(request)
    view = _audit_words.release_view(release)

    def words() -> None:
        verdict = "sound" if held.holds(release) else "NOT SOUND"
        screen.show(f"{release.host}: {release.outcome}, {verdict} ({plain(held.name)})")
        for entry in view.account:
            note = f": {plain(entry.note)}" if entry.note else ""
            screen.show(f"{format_time(entry.at)}  {plain(entry.who)} {entry.words}{note}")
            screen.show(f"    {entry.act}, knew {plain(entry.knew)}")
            if entry.there_by is not None:
                when = format_time(entry.there_by)
                screen.show(f"    there by {when}, {plain(entry.vouched)}")
        for gap in view.gaps:
            screen.show(f"missing    {gap.missing}: {plain(gap.words)}")
        told = (*release.verdicts, *held.report.verdicts)
        screen.verdicts([v for v in told if v.outcome == "fail"])

    screen.result(view, words)
    if not held.holds(release):
        raise typer.Exit(EXIT_REFUSED)


def who_approved(
    archive: ArchiveArgument,
    request: Annotated[
        str | None, typer.Option("--request", help="Only of this request.", metavar="DIGEST")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="Only of this manifest.", metavar="DIGEST")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Only of this host.", metavar="NAME")
    ] = None,
    officer: Annotated[
        str | None, typer.Option("--officer", help="Only by this officer.", metavar="NAME")
    ] = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who approved or refused what, in order, on what each decided, and what came of it.

    Exit code 0 only if every release that one of these answers is sound.
    """
    from custody.ops.archive import ANSWERS, acts_of

    screen = Screen(as_json=as_json)
    found = opened(screen, archive, policy_pin, home, tsa_root)
    rows = [
        AnswerLine(
            officer=act.entry.who,
            answer=act.entry.act,
            at=act.entry.at,
            host=act.release.host,
            request=act.release.request,
            manifest=act.release.manifest,
            knew=act.entry.knew,
            note=act.entry.note,
            outcome=act.release.outcome,
            sound=act.sound,
            file=act.held,
        )
        for act in acts_of(found)
        if act.entry.act.startswith(ANSWERS)
        and act.release.request.startswith((request or "").lower())
        and act.release.manifest.startswith((manifest or "").lower())
        and host in (None, act.release.host)
        and officer in (None, act.entry.who)
    ]
    cells = [
        (
            format_time(r.at),
            r.officer,
            r.answer,
            r.host,
            r.request[:_SHORT],
            "sound" if r.sound else "NOT SOUND",
            r.note,
        )
        for r in rows
    ]
    heads = ("at", "officer", "answer", "host", "request", "release", "why")
    screen.result(rows, lambda: _table(screen, heads, cells))
    if _broken(found) or not all(row.sound for row in rows):
        raise typer.Exit(EXIT_REFUSED)


def overdue(
    archive: ArchiveArgument,
    at: AtOption = None,
    log: LogOption = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what lingers: requests without an end, keys not burnt or kept, bundles that had their
    time, policies, lists and certificates that end within thirty days.

    Exit code 4 if anything is late already.
    """
    from custody.cli._words import plain
    from custody.ops.overdue import overdue as find_overdue
    from custody.ops.overdue import unshown

    screen = Screen(as_json=as_json)
    pin, now = pinned(screen, policy_pin, home), moment(at, option="--at")
    found = _judged(screen, archive, pin, policy_pin, home, tsa_root)
    entries: Iterable[tuple[int, LogEntry]] = ()
    if log is not None:
        found, entries = linked(found, log, pin, home)
    late = [*find_overdue(found, pin=pin, now=now), *unshown(found, entries, now=now)]
    rows = [
        OverdueLine(
            kind=each.kind,
            since=each.since,
            due=each.is_due(now),
            who=each.who,
            what=each.what,
            do=each.do,
            digest=each.digest,
        )
        for each in late
    ]

    def words() -> None:
        for row in rows:
            state = "late" if row.due else "soon"
            screen.show(f"{state}  {format_time(row.since)}  {row.kind}  {plain(row.who)}")
            screen.show(f"    {plain(row.what)}")
            screen.show(f"    {plain(row.do)}")

    screen.result(rows, words)
    if any(row.due for row in rows):
        raise typer.Exit(4)


def since(
    time: Annotated[str, typer.Argument(help="A time, as 2027-01-05T12:00:00Z.", metavar="TIME")],
    archive: ArchiveArgument,
    until: Annotated[
        str | None, typer.Option("--until", help="And before this one.", metavar="TIME")
    ] = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what happened since a time, in order: all that can have, by what each author claims, or
    by when somebody saw it.
    """
    from custody.ops.account import within
    from custody.ops.export import act_lines

    screen = Screen(as_json=as_json)
    begin = moment(time, option="TIME")
    end = moment(until, option="--until") if until else None
    found = opened(screen, archive, policy_pin, home, tsa_root)
    rows = [
        line for line in act_lines(found) if within(line.at, line.there_by, since=begin, until=end)
    ]
    cells = [
        (
            format_time(r.at),
            r.who,
            r.words,
            r.host,
            r.request[:_SHORT],
            "sound" if r.sound else "NOT SOUND",
            r.note,
        )
        for r in rows
    ]
    heads = ("at", "who", "what", "host", "request", "release", "note")
    screen.result(rows, lambda: _table(screen, heads, cells))


def export(
    archive: ArchiveArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write; never overwrites.", metavar="FILE")
    ],
    form: Annotated[
        Literal["json-lines", "in-toto"],
        typer.Option("--as", help="What happened, or the statements themselves."),
    ] = "json-lines",
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    home: HomeOption = None,
) -> None:
    """Write an archive for other tools: a line for each act, which says whether its release is
    sound, or each DSSE envelope of those that are (in-toto).

    Exit code 0 only if everything is sound; what is not is named.
    """
    from custody.cli._words import plain
    from custody.ops.export import intoto_bundle, json_lines
    from custody.ops.landing import check_absent, write_new_file

    screen = Screen()
    check_absent(out)
    found = opened(screen, archive, policy_pin, home, tsa_root)
    write_new_file(out, intoto_bundle(found) if form == "in-toto" else json_lines(found))
    screen.made(out)
    unsound = [h.name for h in found.held if h.report.releases and not h.report.sound]
    for name in unsound:
        screen.say(f"NOT SOUND  {plain(name)}: custody auditor list")
    if _broken(found) or unsound:
        raise typer.Exit(EXIT_REFUSED)


def opened(
    screen: Screen,
    archive: Sequence[str],
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
) -> Archive:
    """Read and judge an archive, and name what could not be read."""
    pin = pinned(screen, policy_pin, home)
    return _judged(screen, archive, pin, policy_pin, home, tsa_root)


def _judged(
    screen: Screen,
    archive: Sequence[str],
    pin: str,
    policy_pin: str | None,
    home: Path | None,
    tsa_root: Sequence[Path] | None,
) -> Archive:
    from custody.cli._words import plain
    from custody.ops.archive import read_archive
    from custody.transports.api import open_store

    shelves = [open_store(place) for place in archive if place.startswith(_BUCKETS)]
    paths = [Path(place) for place in archive if not place.startswith(_BUCKETS)]
    found = read_archive(
        paths,
        shelves=shelves,
        pin=pin,
        tsa_roots=tsa_roots(tsa_root),
        remembered=remembered(policy_pin, home),
        retired=retired(policy_pin, home, pin),
    )
    for unopened in found.unopened:
        screen.say(f"unreadable {plain(unopened.name)}: {plain(unopened.reason)}")
    for held in found.empty():
        screen.say(f"NOT SOUND  {plain(held.name)}: tells of no release, which nobody collects")
    say_histories(screen, found)
    if not any(found.releases()):
        screen.say("no release is here; custody auditor collect makes a file of one")
    return found


def _broken(found: Archive) -> bool:
    """Whether anything of an archive is not there to be judged."""
    return bool(found.unopened) or any(found.empty())


def _table(screen: Screen, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from custody.cli._words import plain

    screen.table(heads, [tuple(plain(cell) for cell in row) for row in rows])
