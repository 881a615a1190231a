"""Small compressed bundles, honest and forged, for the tests of frames."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from blake3 import blake3

from custody.crypto.parts import Row, padded_parts, row_digest, seal_part
from custody.formats.contents import File
from custody.formats.frames import Frame
from custody.formats.parts import PARTS, PAYLOAD, PartTable
from custody.formats.policy import PartDigest
from custody.ops.frame_plan import plan_frames
from custody.ops.frame_seal import seal_frames
from custody.ops.landing import new_directory
from custody.ops.model_files import scan
from custody.ops.payload_seal import PayloadKey, SealedPayload
from tests.unit.ops.bundles import PART, Sealed, contents_of, core_of, noise, write_model
from tests.unit.ops.test_frame_codec import floats


def safetensors(tensors: Mapping[str, tuple[str, bytes]]) -> bytes:
    """Write a safetensors file of one-dimensional tensors: (dtype, bytes) by name."""
    header: dict[str, object] = {}
    end = 0
    width = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8, "U8": 1}
    for name, (dtype, data) in tensors.items():
        shape = [len(data) // width[dtype]]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values())


def bf16(size_bytes: int, seed: int = 1) -> bytes:
    """Weights of 16 bits with 8 of exponent."""
    return floats(size_bytes // 2, seed, keep=2)


def model_files() -> dict[str, bytes]:
    """Files of every kind: floats by header, text, noise, zeros, and nothing at all."""
    return {
        "config.json": json.dumps({"hidden_size": 384, "layers": list(range(60))}).encode(),
        "empty": b"",
        "model/a.safetensors": safetensors(
            {
                "wide": ("F32", floats(3 * PART // 4, 2)),
                "small": ("F32", floats(10, 3)),
                "narrow": ("BF16", bf16(5 * PART, 4)),
                "places": ("I64", b"".join(n.to_bytes(8, "little") for n in range(PART // 8))),
                "bytes": ("U8", noise(PART + 3, 5)),
            }
        ),
        "noise.bin": noise(2 * PART + 1, 6),
        "vocab.txt": b"".join(b"token%d\n" % n for n in range(20_000)),
        "zeros.bin": bytes(3 * PART),
    }


def seal_compressed(
    model: Path,
    bundle: Path,
    *,
    part_size: int = PART,
    part_digest: PartDigest = "blake3",
    workers: int | None = None,
) -> Sealed:
    """Seal a model that compresses into a new bundle directory."""
    key = PayloadKey(cek=os.urandom(32), payload_id=os.urandom(32), part_digest=part_digest)
    plan = plan_frames(model, scan(model).files, part_size_bytes=part_size)
    assert plan is not None
    with new_directory(bundle) as directory:
        sealed = seal_frames(
            model,
            plan,
            key=key,
            directory=directory,
            workers=workers,
        )
    return _described(bundle, sealed, key, part_size)


def forge(
    bundle: Path,
    frames: Sequence[tuple[Frame, bytes]],
    files: Mapping[str, bytes],
    *,
    part_size: int = PART,
) -> Sealed:
    """Seal whatever frames and stored bytes a dishonest publisher likes, under his own key."""
    key = PayloadKey(cek=os.urandom(32), payload_id=os.urandom(32), part_digest="blake3")
    stream = b"".join(stored for _, stored in frames)
    count = padded_parts(len(stream), part_size)
    stream += bytes(count * part_size - len(stream))
    payload, rows = b"", b""
    for index in range(count):
        buffer = bytearray(stream[index * part_size : (index + 1) * part_size] + bytes(16))
        salt = os.urandom(24)
        tag = seal_part(key.cek, key.payload_id, index, buffer, salt=salt)
        digest = row_digest("blake3", index, salt, buffer[:part_size], tag)
        rows += Row(salt=salt, tag=tag, digest=digest).pack()
        payload += buffer[:part_size]
    write_model(bundle, {PAYLOAD: payload, PARTS: rows})
    table, end = [], 0
    for name, data in sorted(files.items()):
        sha256 = hashlib.sha256(data).hexdigest()
        table.append(File(name=name, size_bytes=len(data), sha256=sha256, offset=end))
        end += len(data)
    sealed = SealedPayload(
        parts_root=PartTable(rows).root(),
        part_count=count,
        files=tuple(table),
        frames=b"".join(frame.pack() for frame, _ in frames),
    )
    return _described(bundle, sealed, key, part_size)


def frame_of(plaintext: bytes, stored: bytes, *, width: int = 0, planes: int = 0) -> Frame:
    """Describe a frame."""
    return Frame(
        width=width,
        planes=planes,
        size_bytes=len(plaintext),
        stored_bytes=len(stored),
        digest=blake3(plaintext).digest(),
    )


def _described(bundle: Path, sealed: SealedPayload, key: PayloadKey, part_size: int) -> Sealed:
    core = core_of(
        sealed,
        cek=bytes(key.cek),
        payload_id=key.payload_id,
        part_size=part_size,
        part_digest=key.part_digest,
    )
    return Sealed(bundle, core, contents_of(sealed), bytes(key.cek))
