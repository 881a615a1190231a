"""``predict``: would this host still be let in after an update?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._eventlog import EventLogOption, read_event_log
from custody.cli._home import EnvOption, HomeOption, JsonOption, TpmOption, example
from custody.cli._session import stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.errors import Incomplete, Refused
from custody.formats.goldenset import GoldenSet
from custody.ops.folders import read_statement_file
from custody.ops.predict import Prediction, predict

_OUTCOMES = {
    "passes": "passes as it runs now",
    "after-update": "will pass once updated",
    "differs": "will not pass",
}


def add_predict(app: typer.Typer) -> None:
    """Add ``predict`` to the host's commands."""
    app.command(
        name="predict",
        epilog=example("custody host predict --golden gpu-4.dsse --tpm tpm: --env ./production"),
    )(predict_update)


def predict_update(
    golden: Annotated[
        list[Path],
        typer.Option("--golden", help="A golden set to come; may be repeated.", metavar="FILE"),
    ],
    tpm: TpmOption,
    event_log: EventLogOption = None,
    env: EnvOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether this host will pass by a golden set, and what stands in the way.

    The environment's golden sets tell what the update changes from what is this host's own.
    """
    screen = Screen(as_json=as_json)
    log = read_event_log(event_log)
    if not log:
        raise Incomplete(
            "an event log is needed to compare components",
            missing=["event log"],
            hint="--event-log /sys/kernel/security/tpm0/binary_bios_measurements",
        )
    standing = stand(home, env, "host")
    found = predict(
        [read_statement_file(GoldenSet, path) for path in golden],
        tpm=open_tpm(tpm),
        event_log=log,
        situation=standing.situation,
    )

    def words() -> None:
        for prediction in found:
            _show(screen, prediction)

    screen.result(found, words)
    if not any(prediction.good for prediction in found):
        raise Refused("no golden set given will let this host in", check="predict.state")


def _show(screen: Screen, prediction: Prediction) -> None:
    screen.show(f"{prediction.name}, epoch {prediction.epoch}: {_OUTCOMES[prediction.outcome]}")
    if not prediction.signed:
        screen.show("  not signed by enough enrollers yet, or not for this environment")
    if prediction.replaced:
        screen.show("  replaced by a newer epoch")
    if prediction.needed is not None:
        who = ", ".join(prediction.authorised) or "nobody"
        screen.show(f"  kept keys  authorised by {who}, of {prediction.needed} that it takes")
    for change in prediction.changes:
        why = "the update" if change.update else "this host"
        screen.show(f"  {why:10} {_words.plain(change.words)}")
