"""What the shape of a bundle tells: its padded size, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from custody.crypto.parts import DEFAULT_PART_SIZE, padded_parts
from custody.ops.bundle import CONTENTS, PARTS, PAYLOAD, Bundle
from tests.release.cast import Cast
from tests.unit.ops.bundles import write_model

_SIZE = 9 * DEFAULT_PART_SIZE + 1


def _shape(path: Path) -> tuple[int, ...]:
    """Everything about a bundle that is no digest, key or ciphertext."""
    core = Bundle.at(path).core
    sizes = (path / name for name in (CONTENTS, PARTS, PAYLOAD))
    return (
        *(file.stat().st_size for file in sizes),
        core.part_count,
        core.part_size_bytes,
        core.contents_size_bytes,
    )


def test_models_whose_sizes_pad_alike_have_bundles_of_one_shape(cast: Cast) -> None:
    """One file or two thousand, long names or short: storage cannot tell which of them it has."""
    one = {"model.safetensors": os.urandom(_SIZE)}
    share = _SIZE // 2000
    many = {f"model/layers/{n:04}/weights.bin": os.urandom(share + n % 7) for n in range(2000)}
    assert padded_parts(_SIZE, DEFAULT_PART_SIZE) == padded_parts(
        sum(map(len, many.values())), DEFAULT_PART_SIZE
    )
    shapes = []
    for name, files in (("one", one), ("many", many)):
        model = write_model(cast.folder / name, files)
        cast.seal_into(model, cast.folder / f"{name}.bundle")
        shapes.append(_shape(cast.folder / f"{name}.bundle"))
    assert shapes[0] == shapes[1]
    longer = write_model(cast.folder / "longer", {"m": os.urandom(2 * _SIZE)})
    cast.seal_into(longer, cast.folder / "longer.bundle")
    assert shapes[0] != _shape(cast.folder / "longer.bundle")
