"""Small models and the bundles made of them, for the tests of the bulk half."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from custody.crypto.parts import cek_commitment
from custody.formats.contents import Base, Contents
from custody.formats.manifest import Core
from custody.formats.policy import PartDigest
from custody.ops.landing import new_directory
from custody.ops.model_files import Layout, plan_layout, scan
from custody.ops.payload_open import open_payload
from custody.ops.payload_seal import SealedPayload, seal_payload

PART = 1 << 16
#: Repeated all through a model's files; found anywhere else, it is plaintext that leaked.
MARKER = b"only-in-the-model"
NOBODY = "00" * 32


@dataclass(frozen=True)
class Sealed:
    """A bundle on disk and what opens it."""

    bundle: Path
    core: Core
    contents: Contents
    cek: bytes
    payload: SealedPayload | None = None

    def open(self, target: Path, *, base: Path | None = None, workers: int | None = None) -> None:
        """Open all of it."""
        open_payload(
            self.bundle,
            target,
            core=self.core,
            contents=self.contents,
            cek=self.cek,
            base=base,
            workers=workers,
        )


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that compress badly and are the same every time."""
    return random.Random(seed).randbytes(size)


def marked(size: int) -> bytes:
    """Bytes full of the marker."""
    return (MARKER * (size // len(MARKER) + 1))[:size]


def write_model(model: Path, files: Mapping[str, bytes]) -> Path:
    """Write a model directory."""
    model.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return model


def read_model(model: Path) -> dict[str, bytes]:
    """Read every file below a directory."""
    return {
        str(path.relative_to(model)): path.read_bytes()
        for path in model.rglob("*")
        if path.is_file()
    }


def names(directory: Path) -> set[str]:
    """Name everything in a directory, hidden or not."""
    return {path.name for path in directory.iterdir()}


def core_of(
    sealed: SealedPayload,
    *,
    cek: bytes,
    payload_id: bytes,
    part_size: int = PART,
    part_digest: PartDigest = "blake3",
) -> Core:
    """Describe a payload as a manifest does."""
    return Core(
        payload_id=payload_id.hex(),
        environment=NOBODY,
        policy_version=1,
        tree=NOBODY,
        publisher=NOBODY,
        part_size_bytes=part_size,
        part_count=sealed.part_count,
        part_digest=part_digest,
        parts_root=sealed.parts_root,
        cek_commitment=cek_commitment(cek, payload_id).hex(),
        contents=NOBODY,
        contents_size_bytes=1 << 16,
        site=None,
        recovery=None,
        sealed_at=datetime(2027, 1, 5, tzinfo=UTC),
        not_after=datetime(2027, 2, 5, tzinfo=UTC),
        replaces=None,
    )


def contents_of(sealed: SealedPayload, base: Base | None = None) -> Contents:
    """Describe a payload as the sealed contents do."""
    return Contents(
        kind="custody/contents/v1",
        name="minilm",
        version="1",
        notes="",
        model_signature=b"{}",
        files=sealed.files,
        part_digests=sealed.part_digests,
        base=base,
        frames=sealed.frames,
    )


def seal_model(
    model: Path,
    bundle: Path,
    *,
    part_size: int = PART,
    part_digest: PartDigest = "blake3",
    cek: bytes | None = None,
    layout: Layout | None = None,
    workers: int | None = None,
) -> Sealed:
    """Seal a model into a new bundle directory; as it is laid out, where that is given."""
    key, payload_id = cek or os.urandom(32), os.urandom(32)
    layout = layout or plan_layout(scan(model).files, part_size)
    with new_directory(bundle) as directory:
        sealed = seal_payload(
            model,
            layout,
            cek=key,
            payload_id=payload_id,
            part_digest=part_digest,
            directory=directory,
            workers=workers,
        )
    core = core_of(
        sealed,
        cek=key,
        payload_id=payload_id,
        part_size=layout.part_size_bytes,
        part_digest=part_digest,
    )
    return Sealed(bundle, core, contents_of(sealed, layout.base), key, sealed)
