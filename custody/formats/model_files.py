"""What a model signature says about each file, whole or in shards.  Format: model.md, "Shards"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from custody.errors import Malformed
from custody.formats.model import ModelSignature, Resource, check_names

#: Digest sizes in bytes.  The specification has SHA-256, and lets signers use the other two.
ALGORITHMS: Final = {"sha256": 32, "blake2b": 64, "blake3": 32}

_SHARD = re.compile(r"(.+):(0|[1-9][0-9]{0,17}):([1-9][0-9]{0,17})", re.DOTALL)
_MAX_SHARD_BYTES = 1 << 60


class Piece(msgspec.Struct, frozen=True):
    """The bytes from ``start`` to ``end`` of a file; None is its end, wherever that is."""

    start: int
    end: int | None
    digest: bytes


class SignedFile(msgspec.Struct, frozen=True):
    """One file of a signed model: all of it, in order."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int | None:
        """Its size, where shards say so."""
        return self.pieces[-1].end


def check_algorithms(signature: ModelSignature) -> str:
    """Return the one algorithm of every digest; raise `Malformed` for mixed or unknown ones."""
    how = signature.serialization
    if how.hash_type not in ALGORITHMS:
        raise Malformed(f"model signature is by {how.hash_type!r}, which is not known")
    # The reference writes which shards a digest is of into the algorithm's name.
    names = {how.hash_type}
    if how.method == "shards":
        names.add(f"{how.hash_type}-sharded-{shard_size(signature)}")
    for resource in signature.resources:
        if resource.algorithm not in names:
            raise Malformed(
                f"model signature is by {how.hash_type!r} and lists a file by"
                f" {resource.algorithm!r}"
            )
        if len(resource.digest) != 2 * ALGORITHMS[how.hash_type]:
            raise Malformed(f"model signature lists a digest that is not {how.hash_type!r}'s")
    return how.hash_type


def shard_size(signature: ModelSignature) -> int:
    """Return the size of shards in bytes; the reference writes it as ``1000000000.0``."""
    size = signature.serialization.shard_size
    if size is None or not 1 <= size <= _MAX_SHARD_BYTES or size != int(size):
        raise Malformed("model signature has no shard size that is a count of bytes")
    return int(size)


def files_of(signature: ModelSignature) -> tuple[SignedFile, ...]:
    """Return the files of a signature, each once and whole, or raise `Malformed`."""
    if signature.serialization.method == "shards":
        return _joined(signature.resources, shard_size(signature))
    if signature.serialization.shard_size is not None:
        raise Malformed("model signature is over whole files and has a shard size")
    names = [resource.name for resource in signature.resources]
    if names != ["."]:  # how the reference lists a model that is one file
        check_names(names)
    return tuple(
        SignedFile(resource.name, (Piece(0, None, bytes.fromhex(resource.digest)),))
        for resource in signature.resources
    )


def _joined(resources: Iterable[Resource], size: int) -> tuple[SignedFile, ...]:
    """Put shards together.  A gap would be bytes that nobody signed."""
    found: dict[str, list[Piece]] = {}
    for resource in resources:
        match = _SHARD.fullmatch(resource.name)
        if match is None:
            raise Malformed(f"model signature lists no shard: {resource.name[:240]!r}")
        piece = Piece(int(match[2]), int(match[3]), bytes.fromhex(resource.digest))
        found.setdefault(match[1], []).append(piece)
    if list(found) != ["."]:
        check_names(list(found))
    for name, pieces in found.items():
        pieces.sort(key=lambda piece: piece.start)
        for index, piece in enumerate(pieces):
            begin, end = index * size, piece.end or 0
            last = index == len(pieces) - 1
            if piece.start != begin or not (begin < end <= begin + size):
                raise Malformed(f"shards leave a gap in, or overlap in, {name[:240]!r}")
            if not last and end != begin + size:
                raise Malformed(f"shards leave a gap in, or overlap in, {name[:240]!r}")
    return tuple(SignedFile(name, tuple(pieces)) for name, pieces in found.items())
