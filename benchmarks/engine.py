"""The engine alone, in this process, and how near it comes to what the cores can do."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.rates import OPEN, SEAL, Rates, cores, measure, median
from benchmarks.rows import Row, alone, compared
from benchmarks.timing import Contestant, Times, Took, alternate, run_here
from custody.ops.model_files import default_part_size, plan_layout, scan
from custody.ops.payload_open import open_payload
from custody.ops.payload_seal import SealedPayload, seal_payload
from tests.unit.ops.bundles import contents_of, core_of

_CEK: Final = bytes(range(32))
_ID: Final = bytes(range(32, 64))


@dataclass(slots=True)
class Engine:
    """Seal into ``bundle`` and open out of it again, with a key of no consequence."""

    model: Path
    bundle: Path
    target: Path
    part_size_bytes: int = 0
    sealed: list[SealedPayload] = field(default_factory=list)

    def seal(self) -> None:
        """Scan and seal, as `seal_model` does."""
        self.bundle.mkdir(exist_ok=True)
        found = scan(self.model)
        self.part_size_bytes = default_part_size(found.size_bytes)
        self.sealed[:] = [
            seal_payload(
                self.model,
                plan_layout(found.files, self.part_size_bytes),
                cek=_CEK,
                payload_id=_ID,
                part_digest="blake3",
                directory=self.bundle,
            )
        ]

    def open(self) -> None:
        """Open what was sealed last."""
        (sealed,) = self.sealed
        open_payload(
            self.bundle,
            self.target,
            core=core_of(sealed, part_size=self.part_size_bytes, cek=_CEK, payload_id=_ID),
            contents=contents_of(sealed),
            cek=_CEK,
        )

    @property
    def payload_bytes(self) -> int:
        """Size of the payload, padding included."""
        return self.part_size_bytes * self.sealed[0].part_count


def rows(bench: Bench) -> Iterator[Row]:
    """Seal, open and seal on one core in turns, measuring the machine in between."""
    room, size = bench.room, bench.model.size_bytes
    engine = Engine(bench.model.path, room.path / "engine", room.path / "engine-opened")
    measured: dict[str, list[Rates]] = {"before": [], "between": [], "after": []}

    def machine(when: str) -> Contestant:
        def run() -> Took:
            return run_here(lambda: measured[when].append(measure(room, bench.model.archive)))

        return Contestant(name=when, run=run)

    def on_one_core() -> Took:
        with _one_core():
            return run_here(engine.seal)

    def sealing(name: str, run: Callable[[], Took]) -> Contestant:
        return Contestant(
            name=name, run=run, prepare=lambda: room.clear(engine.bundle.name), output_bytes=size
        )

    opening = Contestant(
        name="open",
        run=lambda: run_here(engine.open),
        prepare=lambda: room.clear(engine.target.name),
        output_bytes=size,
    )
    times = alternate(
        room,
        [
            sealing("one core", on_one_core),
            machine("before"),
            sealing("seal", lambda: run_here(engine.seal)),
            machine("between"),
            opening,
            machine("after"),
        ],
        bench.rounds,
    )
    room.clear(engine.bundle.name, engine.target.name)
    yield from _speeds(times, engine.payload_bytes)
    yield compared(
        "seal_scaling",
        "× one core",
        times["one core"].wall / times["seal"].wall,
        cores(),
        f"seal_payload on {cores()} cores beside one; peer: perfect scaling",
    )
    for name, steps, around in (
        ("seal", SEAL, ("before", "between")),
        ("open", OPEN, ("between", "after")),
    ):
        pairs = zip(*(measured[when][1:] for when in around), strict=True)
        yield _fraction(name, times[name], list(pairs), steps, engine.payload_bytes)


def _speeds(times: dict[str, Times], size_bytes: int) -> Iterator[Row]:
    for name in ("seal", "open"):
        took = times[name]
        yield alone(
            f"{name}_engine",
            "GB/s",
            size_bytes / took.wall / 1e9,
            f"{name}_payload alone; {took.wall:.2f} s ({took.spread}), "
            f"{took.cpu / size_bytes * 1e9:.2f} core-seconds a GB",
        )


def _fraction(
    name: str,
    times: Times,
    around: Sequence[tuple[Rates, ...]],
    steps: Sequence[str],
    size_bytes: int,
) -> Row:
    """Hold each turn against the machine as it was just before and just after it."""
    bounds = [statistics.mean(rates.bound(steps, size_bytes) for rates in pair) for pair in around]
    fraction = statistics.median(
        bound / took.wall for bound, took in zip(bounds, times.took, strict=True)
    )
    usual = median([rates for pair in around for rates in pair])
    return compared(
        f"{name}_bound_fraction",
        "of bound",
        fraction,
        1,
        f"{' + '.join(steps)} on {cores()} cores: {statistics.median(bounds):.2f} s at best, "
        f"{times.wall:.2f} s measured; GB/s of a core: "
        + ", ".join(f"{step} {usual.rate[step] / 1e9:.2f}" for step in usual.rate),
    )


@contextmanager
def _one_core() -> Iterator[None]:
    """Let this thread, and those it starts, use one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
