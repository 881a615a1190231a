"""How long the program takes to say anything at all, and what a command costs beside its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.cast import custody_program
from benchmarks.model import make_model
from benchmarks.rows import Row, alone, compared
from benchmarks.timing import Contestant, alternate, run_process

_ROUNDS = 21
_GOAL_MS = 150
_MODEL_BYTES = 1 << 20


def rows(bench: Bench) -> Iterator[Row]:
    """Ask for help; seal, open and verify next to nothing."""
    command = [*custody_program(), "--help"]
    contestant = Contestant(name="help", run=lambda: run_process(command))
    took = alternate(bench.room, [contestant], _ROUNDS)["help"]
    yield compared(
        "help_ms",
        "ms",
        took.wall * 1e3,
        _GOAL_MS,
        f"custody --help, median of {_ROUNDS}; peer: the goal",
    )
    yield from _fixed(bench)


def _fixed(bench: Bench) -> Iterator[Row]:
    """Take turns at the commands of the other benchmarks, on a model that is hardly there."""
    room = bench.room
    place = room.path / "tiny"
    place.mkdir()
    model, bundle, target = make_model(place, _MODEL_BYTES).path, place / "bundle", place / "opened"
    signature = place / "model.sig"
    run_process(bench.model_signing.sign(model, signature))
    verify: list[str | Path] = [*custody_program(), "auditor", "verify-model", model]
    verify += ["--signature", signature, "--key", bench.model_signing.public]

    def before_open() -> None:
        room.clear("tiny/opened")
        bench.actors.approve(bundle)

    contestants = [
        Contestant(
            name="seal",
            run=lambda: run_process(bench.actors.seal(model, bundle)),
            prepare=lambda: room.clear("tiny/bundle"),
        ),
        Contestant(
            name="open",
            run=lambda: run_process(bench.actors.open(bundle, target)),
            prepare=before_open,
        ),
        Contestant(name="verify_model", run=lambda: run_process(verify)),
    ]
    for name, took in alternate(room, contestants, _ROUNDS).items():
        yield alone(
            f"{name}_fixed_ms",
            "ms",
            took.cpu * 1e3,
            f"processor time of the command on 1 MiB, median of {_ROUNDS}; "
            f"{took.wall * 1e3:.0f} ms by the wall",
        )
