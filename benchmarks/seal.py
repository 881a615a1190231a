"""Sealing beside age and model_signing: whole processes, the publisher's key in a token."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.rows import Row, compared
from benchmarks.timing import Contestant, alternate, run_process


def rows(bench: Bench) -> Iterator[Row]:
    """Seal, sign and encrypt in turns."""
    room, model, size = bench.room, bench.model, bench.model.size_bytes
    signature = room.path / "model.sig"
    times = alternate(
        room,
        [
            Contestant(
                name="custody",
                run=lambda: run_process(bench.actors.seal(model.path, bench.bundle)),
                prepare=lambda: room.clear("bundle"),
                output_bytes=size,
            ),
            Contestant(
                name="age",
                run=lambda: run_process(bench.age.encrypt(model.archive, bench.encrypted)),
                prepare=lambda: room.clear(bench.encrypted.name),
                output_bytes=size,
            ),
            Contestant(
                name="model_signing",
                run=lambda: run_process(bench.model_signing.sign(model.path, signature)),
                prepare=lambda: room.clear(signature.name),
            ),
        ],
        bench.rounds,
    )
    ours = times["custody"]
    for name, peer, does in (
        ("seal_vs_model_signing_sign", "model_signing", "only hashes and signs"),
        ("seal_vs_age", "age", "encrypts one tar of the model; no digests, no signature"),
    ):
        theirs = times[peer]
        yield compared(
            name,
            "s",
            ours.wall,
            theirs.wall,
            f"{peer} {does}; cpu {ours.cpu:.2f} and {theirs.cpu:.2f} s; "
            f"ours {ours.spread}, {peer} {theirs.spread}",
        )
