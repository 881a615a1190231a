"""``custody lab``: the whole cast of a release on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from custody.cli._home import JsonOption, LabOption, example, role_app
from custody.cli._ui import Screen
from custody.encoding import Record

if TYPE_CHECKING:
    from custody.lab.cast import Lab

app = role_app("lab", "custody lab up", "custody lab status", "custody lab down")


class Place(Record, frozen=True, kw_only=True):
    """One actor of the lab."""

    name: str
    role: str
    device: str
    alive: bool
    policy_version: int
    """What he judges by; 0 where he trusts no policy yet."""


class LabView(Record, frozen=True, kw_only=True):
    """What ``lab status --json`` shows."""

    directory: str
    policy: str
    actors: tuple[Place, ...]


@app.command(epilog=example("custody lab up", "custody lab up --lab ~/custody-lab"))
def up(lab: LabOption = Path("lab"), as_json: JsonOption = False) -> None:
    """Bring up every actor with a device of his own, and an environment they all trust.

    Where there is a lab already its hosts are powered on, and nothing else is changed.
    """
    from custody.cli._stage import Brief
    from custody.lab.cast import Lab
    from custody.lab.founding import set_up

    screen, place = Screen(as_json=as_json), Lab(lab.absolute())
    narrator = Brief()
    try:
        set_up(place, narrator)
    finally:
        narrator.quiet()
    _show(screen, place)


@app.command(epilog=example("custody lab status", "custody lab status --json"))
def status(lab: LabOption = Path("lab"), as_json: JsonOption = False) -> None:
    """Show who is in the lab, and what of it is alive.

    Exit code 3 if a host's TPM is off.
    """
    from custody.cli._ui import EXIT_UNAVAILABLE
    from custody.lab.cast import Lab

    place = Lab(lab.absolute())
    view = _show(Screen(as_json=as_json), place)
    if not all(actor.alive for actor in view.actors):
        raise typer.Exit(EXIT_UNAVAILABLE)


@app.command(epilog=example("custody lab down"))
def down(lab: LabOption = Path("lab"), as_json: JsonOption = False) -> None:
    """Stop the lab's TPMs and remove its directory, with every key in it.

    Only a directory with the mark of a lab is removed.
    """
    from custody.lab.cast import Lab

    screen, place = Screen(as_json=as_json), Lab(lab.absolute())
    place.remove()
    screen.result({"removed": str(place.directory)}, lambda: screen.show(f"removed {lab}"))


def _show(screen: Screen, place: Lab) -> LabView:
    from custody.lab.founding import policy_in_force

    actors = []
    for actor in place.actors():
        pid = place.tpm(actor).pid() if actor.role == "host" else None
        token = (actor.directory / "tokens").is_dir()
        device = {"host": f"swtpm, process {pid}" if pid else "swtpm, off", "auditor": "none"}
        actors.append(
            Place(
                name=actor.name,
                role=actor.role,
                device=device.get(actor.role, "SoftHSM token" if token else "no token"),
                alive=pid is not None if actor.role == "host" else token or actor.role == "auditor",
                policy_version=policy_in_force(actor),
            )
        )
    view = LabView(directory=str(place.directory), policy=place.mark().policy, actors=tuple(actors))

    def words() -> None:
        screen.show(f"lab in {place.directory}")
        screen.show(f"policy {view.policy or 'none: the lab is not finished'}")
        rows = [
            (a.name, a.role, a.device, f"version {a.policy_version}" if a.policy_version else "-")
            for a in view.actors
        ]
        screen.table(("who", "role", "device", "policy"), rows)
        screen.say(f"be one of them: (. {place.directory}/sec1/profile && custody officer --help)")

    screen.result(view, words)
    return view
