"""``custody demo``: one whole release, live, and what must not work."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._home import LabOption, example

if TYPE_CHECKING:
    from custody.cli._stage import Narrator
    from custody.lab.release import Release

app = typer.Typer(
    name="demo",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog=example("custody demo", "custody demo --model ~/models/mine"))
def demo(
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="A model's directory, only read.  [default: MiniLM, 92 MB]",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    lab: LabOption = Path("lab"),
) -> None:
    """Watch one whole release, by fifteen actors with tokens and TPMs of their own.

    Then see four attempts that must fail do so.  Exit code 0 only if all went as it must.  The lab
    stays, to be played with, and is used again by the next demo.
    """
    from custody.cli._stage import Narrator
    from custody.lab import refusals, release
    from custody.lab.cast import Lab
    from custody.lab.founding import set_up

    began = time.monotonic()
    chosen, place, narrator = release.find_model(model), Lab(lab.absolute()), Narrator()
    try:
        narrator.title(
            "custody demo: one release, from the people who trained a model to a machine that"
            " serves it"
        )
        narrator.say(
            "Every actor is a process of its own, told only of his own directory, token or TPM."
            " What he types is shown; what passes between them is files."
        )
        set_up(place, narrator)
        with place.using():
            told = release.begin(place, narrator, chosen)
            release.tell(told)
            refusals.tell(told)
        _finish(narrator, told, lab, seconds=time.monotonic() - began)
    finally:
        narrator.quiet()


def _finish(narrator: Narrator, told: Release, lab: Path, *, seconds: float) -> None:
    """Say where everything lies, and what to try next."""
    narrator.scene(f"Done, in {seconds:.0f} seconds")
    tag = told.tag
    narrator.places(
        (
            (f"{lab}/pub1/out/{tag}/bundle", "the sealed model, as it travels"),
            (f"{lab}/host1/models/{tag}", "the model, opened"),
            (f"{lab}/sec1", "an officer: his token, PIN, state, what he got and made"),
            (f"{lab}/aud1/in/{tag}", "the case: all an auditor needs, beside the policy's digest"),
            (f"{lab}/public", "the environment's public files"),
            (f"{lab}/transcript", "every command that was run"),
        )
    )
    narrator.console.print()
    narrator.say("Try next:")
    for command in suggestions(told, lab):
        narrator.copyable(command)


def suggestions(told: Release, lab: Path) -> tuple[str, ...]:
    """Commands to try after the demo; each works as it is printed."""
    program, pin, tag = _program(), told.lab.mark().policy, told.tag
    where = "" if lab == Path("lab") else f" --lab {quote(str(lab))}"

    def being(who: str, command: str) -> str:
        # The shell's "." looks a name without a slash up on PATH.
        profile = str(lab / who / "profile")
        return f"(. {quote(profile if lab.is_absolute() else f'./{profile}')} && custody {command})"

    return (
        being("sec1", f"officer review in/{tag}/bundle in/{tag}/host1.request.dsse --checks"),
        being("aud1", f"auditor verify in/{tag} env --policy-pin {pin}"),
        being("host2", "host status"),
        being("cust1", "custodian policy show env/policy-1.dsse"),
        f"{program} lab status{where}",
        f"{program} lab down{where}",
    )


def _program() -> str:
    """How to call this very program from where it was called."""
    own = Path(sys.executable).with_name("custody")
    on_path = shutil.which("custody")
    if on_path is not None and Path(on_path).resolve() == own.resolve():
        return "custody"
    here = Path.cwd()
    if own.exists():
        return quote(str(own.relative_to(here) if own.is_relative_to(here) else own))
    return f"{quote(sys.executable)} -m custody"
