"""Reading vector files: blocks of ``name: value`` lines with a blank line between them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors"
SHARED = ROOT.parent / "shared" / "vectors"

Vector = dict[str, str]


def read(name: str, *headers: str) -> list[Vector]:
    """Read ``tests/vectors/NAME``; a header that is not in ``headers`` or comment is an error."""
    vectors: list[Vector] = []
    for block in (VECTORS / name).read_text(encoding="utf-8").split("\n\n"):
        vector: Vector = {}
        for line in block.splitlines():
            if line.startswith("#") or not line:
                continue
            key, colon, value = line.partition(":")
            if not colon or key in vector or key not in {*headers, "comment"}:
                raise ValueError(f"{name}: unknown or repeated header: {line[:60]}")
            vector[key] = value.strip()
        if vector:
            vectors.append(vector)
    return vectors


def each(name: str, *headers: str, **wanted: str) -> pytest.MarkDecorator:
    """Run a test once per vector whose headers have the ``wanted`` values."""
    chosen = [
        vector
        for vector in read(name, *headers)
        if all(vector.get(key) == value for key, value in wanted.items())
    ]
    return pytest.mark.parametrize("vector", chosen, ids=[v["comment"] for v in chosen])
