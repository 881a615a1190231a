"""What enrollers' commands share: options, what is said before a signature, and after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import moment, read_env
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.encoding import Record, format_time
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.policy import TpmClass
from custody.ops.actor import signer_of
from custody.ops.enroll import differences, ek_digest, namesakes, replaced
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.ops.trust import current
from custody.rules.situation import Situation
from custody.rules.trust import Signed

RequestArgument = Annotated[
    Path, typer.Argument(help="A host's enrolment request.", metavar="FILE", show_default=False)
]
InventoryOption = Annotated[
    Path,
    typer.Option(
        "--inventory",
        help="Approved EKs: lines of digests and names, or a folder of certificates.",
        metavar="PATH",
    ),
]
OntoOption = Annotated[
    Path | None,
    typer.Option("--onto", help="What other enrollers have signed; add to it.", metavar="FILE"),
]


def situation_of(home: Home, env: Sequence[Path] | None) -> Situation:
    """Judge the environment's files from the pin of an enroller's home."""
    return current(home, documents=read_env(env), now=moment(None))


@contextmanager
def signing(home: Home, pin_fd: int | None) -> Iterator[Signer]:
    """Have the enroller's signer for the block; his PIN is asked once, before it."""
    identity = home.identity()
    with open_token(identity.token, pin_fd=pin_fd) as token, token.session():
        yield signer_of(identity, token)


def say_whom(
    screen: Screen, asked: EnrolmentRequest, trust_class: TpmClass, situation: Situation
) -> None:
    """Say which host it is, which other TPM is too, and which record ends, changed in what."""
    screen.say(f"host {asked.host}, {trust_class}, EK {ek_digest(asked)}")
    for other in namesakes(asked, situation):
        said = other.predicate
        when = format_time(said.enrolled_at)
        screen.say(f"another TPM is {said.host} since {when}: EK {said.ek_spki}")
    old = replaced(asked, situation)
    if old is None:
        return
    said = old.predicate
    screen.say(f"ends its record {said.epoch} of {format_time(said.enrolled_at)}, {said.host}")
    changed = differences(said, asked)
    screen.say(f"changed since: {', '.join(changed) if changed else 'nothing'}")


def show_signed(screen: Screen, shown: Record, out: Path, signed: Signed) -> None:
    """Show what was signed, and by how many of the enrollers it needs."""

    def words() -> None:
        screen.show(str(out))
        who = ", ".join(signed.signers)
        screen.show(f"signed by {len(signed.signers)} of {signed.needed}: {who}")

    screen.result(shown, words)
