"""The TPMs that somebody approved: an enroller's own file.  enrolment.md, "Inventory"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, Name, key_id
from custody.errors import Malformed
from custody.ops.folders import read_file, reading
from custody.ops.pem import read_certificate_file

_MAX_BYTES = 16 << 20

#: Approved EKs, by SHA-256 of their SubjectPublicKeyInfo; with the name of the host, where the file
#: says whose TPM it is.
Inventory = Mapping[Digest, Name | None]


def read_inventory(path: Path) -> Inventory:
    """Read the approved EKs: a folder of certificates, or lines of hex SHA-256 of their SPKI.

    A line may name its host behind the digest, and go on with a comment after ``#``.
    """
    if path.is_dir():
        return {
            key_id(spki_of(read_certificate_file(file))): None for file in sorted(path.iterdir())
        }
    with reading(path):
        try:
            lines = read_file(path, max_bytes=_MAX_BYTES).decode("ascii").splitlines()
        except UnicodeDecodeError as error:
            raise Malformed("not an inventory: lines of hex digests") from error
        listed: dict[Digest, Name | None] = {}
        for line in lines:
            words = line.partition("#")[0].split()
            if not words:
                continue
            digest, name = _read_line(words)
            # Two names for one TPM are two opinions, and nobody here knows the right one.
            if listed.setdefault(digest, name) != name:
                raise Malformed(f"not an inventory: {digest} is listed twice, differently")
        return listed


def _read_line(words: list[str]) -> tuple[Digest, Name | None]:
    digest = words[0].lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise Malformed(f"not an inventory: {words[0][:80]!r} is no digest")
    if len(words) == 1:
        return digest, None
    try:
        (name,) = words[1:]
        return digest, msgspec.convert(name, Name)
    except ValueError as error:
        raise Malformed(f"not an inventory: {' '.join(words[1:])[:80]!r} is no name") from error
