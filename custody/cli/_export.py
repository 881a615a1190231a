"""``export``: an archive for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from custody.cli._archive import ArchiveArgument, CeremonyOption, chronicled, is_broken
from custody.cli._case import PolicyPinOption, TsaRootOption
from custody.cli._home import HomeOption, example
from custody.cli._ui import EXIT_REFUSED, Screen


def add_export(app: typer.Typer) -> None:
    """Add ``export``."""
    app.command(
        epilog=example(
            "custody auditor export ./archive ./production --as in-toto \\",
            "    --out all.intoto.jsonl",
        )
    )(export)


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
    ceremony: CeremonyOption = None,
    home: HomeOption = None,
) -> None:
    """Write an archive for other tools: a line for each act, which says whether its release is
    sound, or each DSSE envelope of those that are (in-toto).

    With the environment's folder beside the archive also what is of no release: policies, who came
    and went, tokens, hosts, bundles, recovery keys and backups; with --ceremony a ceremony.
    Revocation lists and transcripts are told in lines; an in-toto bundle has no place for them.

    Exit code 0 only if everything is sound; what is not is named.
    """
    from custody.cli._words import plain
    from custody.ops.export import intoto_bundle, json_lines
    from custody.ops.landing import check_absent, write_new_file

    screen = Screen()
    check_absent(out)
    found, chronicle = chronicled(screen, archive, policy_pin, home, tsa_root, ceremonies=ceremony)
    written = intoto_bundle if form == "in-toto" else json_lines
    write_new_file(out, written(found, chronicle))
    screen.made(out)
    unsound = [h.name for h in found.held if h.report.releases and not h.report.sound]
    for name in unsound:
        screen.say(f"NOT SOUND  {plain(name)}: custody auditor list")
    if is_broken(found) or unsound:
        raise typer.Exit(EXIT_REFUSED)
