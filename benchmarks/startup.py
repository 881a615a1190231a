"""How long the program takes to say anything at all."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.cast import custody_program
from benchmarks.rows import Row, compared
from benchmarks.timing import Contestant, alternate, run_process

_ROUNDS = 21
_GOAL_MS = 150


def rows(bench: Bench) -> Iterator[Row]:
    """Ask for help."""
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
