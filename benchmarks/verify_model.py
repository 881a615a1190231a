"""Verifying a model.sig beside the reference: whole processes, on the same signature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.cast import custody_program
from benchmarks.rows import Row, compared
from benchmarks.timing import Contestant, alternate, run_process


def rows(bench: Bench) -> Iterator[Row]:
    """Let the reference sign, then verify in turns."""
    room, model, peer = bench.room, bench.model.path, bench.model_signing
    signature = room.path / "verified.sig"
    room.clear(signature.name)
    run_process(peer.sign(model, signature))
    ours: list[str | Path] = [*custody_program(), "auditor", "verify-model", model]
    ours += ["--signature", signature, "--key", peer.public]
    times = alternate(
        room,
        [
            Contestant(name="custody", run=lambda: run_process(ours)),
            Contestant(
                name="model_signing", run=lambda: run_process(peer.verify(model, signature))
            ),
        ],
        bench.rounds,
    )
    room.clear(signature.name)
    mine, theirs = times["custody"], times["model_signing"]
    yield compared(
        "verify_model_vs_model_signing_verify",
        "s",
        mine.wall,
        theirs.wall,
        f"both hash every file; cpu {mine.cpu:.2f} and {theirs.cpu:.2f} s; "
        f"ours {mine.spread}, model_signing {theirs.spread}",
    )
