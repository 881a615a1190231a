"""The table of a payload's parts.  Format: parts.md, version 1."""

from __future__ import annotations

from collections.abc import Iterator

from blake3 import blake3

from custody.crypto import merkle
from custody.crypto.parts import MAX_PARTS, ROW_BYTES, Row
from custody.crypto.secret import Octets
from custody.encoding import Digest, sha256
from custody.errors import Refused
from custody.formats.policy import PartDigest

#: File names in a bundle.
PAYLOAD = "payload"
PARTS = "parts"


class PartTable:
    """The rows of ``parts``.  They are authentic once their `root` is the manifest's."""

    def __init__(self, data: bytes | bytearray) -> None:
        """Take whole rows, at least one."""
        if not data or len(data) % ROW_BYTES or len(data) > MAX_PARTS * ROW_BYTES:
            raise ValueError("a table of parts has 1 to 2**24 rows of 72 bytes")
        self._rows = memoryview(data).toreadonly()

    def __len__(self) -> int:
        """Count the parts."""
        return len(self._rows) // ROW_BYTES

    def row(self, index: int) -> Row:
        """Return the row of part ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Row.unpack(self._packed(index))

    def root(self) -> Digest:
        """Return the RFC 6962 tree head over all rows."""
        return merkle.root(merkle.leaf_hash(row) for row in self._all()).hex()

    def _all(self) -> Iterator[bytes]:
        return (bytes(self._packed(index)) for index in range(len(self)))

    def _packed(self, index: int) -> memoryview:
        return self._rows[index * ROW_BYTES : (index + 1) * ROW_BYTES]


def plaintext_digest(algorithm: PartDigest, plaintext: Octets) -> bytes:
    """Digest one part's plaintext, padding included, for the contents (32 bytes)."""
    if algorithm == "blake3":
        return blake3(plaintext).digest()
    return sha256(plaintext)


def decode_parts(data: bytes, *, part_count: int, parts_root: Digest) -> PartTable:
    """Read ``parts`` as the manifest's core describes it.

    Raises ``Refused("parts.size")`` and ``Refused("parts.root")``: without the core there is
    nothing a table could be right or wrong about.
    """
    check_parts_size(len(data), part_count=part_count)
    table = PartTable(data)
    # Rows are believed only after this: a salt or digest of somebody else's choosing never
    # reaches the cipher, and a part that fails afterwards is the payload's fault.
    if table.root() != parts_root:
        raise Refused(
            "rows are not those of the manifest: changed, reordered or from another bundle",
            check="parts.root",
        )
    return table


def check_parts_size(size_bytes: int, *, part_count: int) -> None:
    """Refuse a table that cannot be right, before it is read."""
    if size_bytes != part_count * ROW_BYTES:
        raise Refused(
            f"has {size_bytes} bytes where {part_count} parts need {part_count * ROW_BYTES}",
            check="parts.size",
        )
