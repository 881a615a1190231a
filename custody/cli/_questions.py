"""Questions to an archive of collected files: what is there, who decided, what happened."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._archive import (
    SHORT,
    ArchiveArgument,
    CeremonyOption,
    chronicled,
    is_broken,
    opened,
    show_table,
)
from custody.cli._case import PolicyPinOption, TsaRootOption
from custody.cli._home import HomeOption, JsonOption, example, moment
from custody.cli._ui import EXIT_REFUSED, Screen
from custody.encoding import Record, format_time

if TYPE_CHECKING:
    from custody.ops.export import ActLine


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


def add_since(app: typer.Typer) -> None:
    """Add ``since``."""
    app.command(
        epilog=example("custody auditor since 2027-01-01T00:00:00Z ./archive ./production")
    )(since)


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
            row.request[:SHORT],
            row.host,
            row.outcome if row.sound else f"{row.outcome}, NOT SOUND",
            format_time(row.at),
            row.time,
            row.file,
        )
        for row in rows
    ]
    heads = ("request", "host", "outcome", "judged at", "time", "file")
    screen.result(rows, lambda: show_table(screen, heads, cells, nothing="no release"))
    if is_broken(found) or not all(row.sound for row in rows):
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
            r.request[:SHORT],
            "sound" if r.sound else "NOT SOUND",
            r.note,
        )
        for r in rows
    ]
    heads = ("at", "officer", "answer", "host", "request", "release", "why")
    screen.result(rows, lambda: show_table(screen, heads, cells, nothing="no such answer is here"))
    if is_broken(found) or not all(row.sound for row in rows):
        raise typer.Exit(EXIT_REFUSED)


def since(
    time: Annotated[
        str, typer.Argument(help="A time, as 2027-01-05T12:00:00Z, or a day.", metavar="TIME")
    ],
    archive: ArchiveArgument,
    until: Annotated[
        str | None, typer.Option("--until", help="And before this one.", metavar="TIME")
    ] = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    ceremony: CeremonyOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what happened since a time, in order: all that can have, by what each author claims, or
    by when somebody saw it.

    With the environment's folder beside the archive also what is of no release: policies, who came
    and went, tokens, hosts, bundles, recovery keys and backups; with --ceremony a ceremony.
    """
    from custody.ops.account import within
    from custody.ops.export import act_lines

    screen = Screen(as_json=as_json)
    begin = moment(time, option="TIME")
    end = moment(until, option="--until") if until else None
    found, chronicle = chronicled(
        screen, archive, policy_pin, home, tsa_root, ceremonies=ceremony, until=end
    )
    rows = [
        line
        for line in act_lines(found, chronicle)
        if within(line.at, line.there_by, since=begin, until=end)
    ]
    cells = [
        (
            format_time(r.at),
            r.who,
            r.words,
            r.host,
            r.request[:SHORT],
            _standing(r),
            r.note,
        )
        for r in rows
    ]
    heads = ("at", "who", "what", "host", "request", "release", "note")
    screen.result(
        rows, lambda: show_table(screen, heads, cells, nothing="nothing happened in that time")
    )


def _standing(line: ActLine) -> str:
    """Say whether a line's release is sound, or of no release, that it is not believed."""
    if line.request:
        return "sound" if line.sound else "NOT SOUND"
    return "" if line.sound else "NOT BELIEVED"
