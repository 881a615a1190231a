"""Opening beside age: whole processes, the host's key in a TPM, a fresh release for each turn."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.rows import Row, compared
from benchmarks.timing import Contestant, alternate, run_process


def rows(bench: Bench) -> Iterator[Row]:
    """Open and decrypt in turns."""
    room, size = bench.room, bench.model.size_bytes
    plain = room.path / "opened.tar"
    if not bench.bundle.exists():
        run_process(bench.actors.seal(bench.model.path, bench.bundle))
        run_process(bench.age.encrypt(bench.model.archive, bench.encrypted))

    def prepare() -> None:
        room.clear(bench.target.name)
        bench.actors.approve(bench.bundle)

    times = alternate(
        room,
        [
            Contestant(
                name="custody",
                run=lambda: run_process(bench.actors.open(bench.bundle, bench.target)),
                prepare=prepare,
                output_bytes=size,
            ),
            Contestant(
                name="age",
                run=lambda: run_process(bench.age.decrypt(bench.encrypted, plain)),
                prepare=lambda: room.clear(plain.name),
                output_bytes=size,
            ),
        ],
        bench.rounds,
    )
    room.clear(bench.target.name, plain.name)
    ours, theirs = times["custody"], times["age"]
    yield compared(
        "open_vs_age",
        "s",
        ours.wall,
        theirs.wall,
        f"judging evidence and the TPM included; cpu {ours.cpu:.2f} and {theirs.cpu:.2f} s; "
        f"ours {ours.spread}, age {theirs.spread}",
    )
