"""The model that is sealed: big shards of unequal size, and small files, all of random bytes."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 4 << 20
#: Sixteenths of the whole that each big file gets.
_SHARES = (4, 4, 4, 3, 1)
_SMALL = 24


@dataclass(frozen=True, slots=True)
class Model:
    """A model directory, and a tar archive of it for tools that take one file."""

    path: Path
    archive: Path
    size_bytes: int
    files: int


def make_model(place: Path, size_bytes: int) -> Model:
    """Write a model of about ``size_bytes``, and its archive."""
    path = place / "model"
    path.mkdir()
    sizes = {f"model-{n}.safetensors": size_bytes * s // 16 for n, s in enumerate(_SHARES, 1)}
    sizes |= {f"tokenizer/{n:02}.json": 1_000 + 3_000 * n for n in range(_SMALL)}
    (path / "tokenizer").mkdir()
    for name, size in sizes.items():
        _write_random(path / name, size)
    archive = place / "model.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(path, arcname="model")
    return Model(path, archive, sum(sizes.values()), len(sizes))


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for begin in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - begin)))
