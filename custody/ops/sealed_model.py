"""What a sealing leaves in its publisher's home, for updates to the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from custody.encoding import Bytes32, Count, Digest, Record, decode, encode
from custody.formats.contents import MAX_CONTENTS_BYTES, File
from custody.ops.folders import read_file, reading
from custody.ops.landing import replace_file


class SealedModel(Record, frozen=True):
    """The digests of files and the fingerprints of parts (16 bytes each); no plaintext."""

    kind: Literal["custody/sealed-model/v1"]
    manifest: Digest
    part_size_bytes: Count
    files: tuple[File, ...]
    fingerprint_key: Bytes32
    fingerprints: bytes

    def remember(self, folder: Path) -> None:
        """Write it down."""
        replace_file(folder / f"{self.manifest}.json", encode(self))

    @classmethod
    def recall(cls, folder: Path, manifest: Digest) -> SealedModel | None:
        """Read what was written down of a manifest, if anything was."""
        path = folder / f"{manifest}.json"
        if not path.exists():
            return None
        with reading(path):
            data = read_file(path, max_bytes=MAX_CONTENTS_BYTES)
            return decode(cls, data, max_bytes=MAX_CONTENTS_BYTES)
