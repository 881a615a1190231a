"""Times by the wall and by the processor, of contestants that take turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.room import Room

_PATIENCE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of wall clock, and seconds of processor in user and kernel mode together."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Times:
    """What one contestant took, round by round."""

    took: list[Took] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """Median seconds by the wall."""
        return statistics.median(t.wall for t in self.took)

    @property
    def cpu(self) -> float:
        """Median seconds of processor."""
        return statistics.median(t.cpu for t in self.took)

    @property
    def spread(self) -> str:
        """Say from where to where they went."""
        walls = [t.wall for t in self.took]
        return f"{min(walls):.2f}–{max(walls):.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Something to be timed.

    ``prepare`` runs before each turn and is not timed; ``output_bytes`` is what ``run`` writes.
    """

    name: str
    run: Callable[[], Took]
    prepare: Callable[[], object] = lambda: None
    output_bytes: int = 0


def alternate(room: Room, contestants: Sequence[Contestant], rounds: int) -> dict[str, Times]:
    """Let contestants take turns, A B C A B C, so that a busy minute hits them all.

    A first turn each, not counted, brings programs and libraries into memory.  Before each turn as
    much memory as it will fill is written and given back, so that nobody pays for memory the
    machine has yet to get.
    """
    times = {contestant.name: Times() for contestant in contestants}
    for turn in range(rounds + 1):
        for contestant in contestants:
            contestant.prepare()
            room.warm(contestant.output_bytes)
            took = contestant.run()
            if turn:
                times[contestant.name].took.append(took)
    return times


def run_process(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> Took:
    """Run a command from start to end; one that fails ends the benchmark with its words."""
    with tempfile.TemporaryFile() as words:
        begun = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={**os.environ, **(environment or {})},
        )
        overdue = threading.Timer(_PATIENCE_SECONDS, child.kill)
        overdue.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        overdue.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            words.seek(0)
            said = words.read().decode(errors="replace")
            raise SystemExit(f"bench: {command[0]} failed ({child.returncode}):\n{said}")
    return Took(wall, usage.ru_utime + usage.ru_stime)


def run_here(work: Callable[[], object]) -> Took:
    """Time work in this process."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - begun, time.process_time() - cpu)
