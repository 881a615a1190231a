"""Proofs that an entry is in a log.  Format: C2SP tlog-proof; checkpoint.md, "Proofs"."""

from __future__ import annotations

from dataclasses import dataclass

from custody.crypto.merkle import leaf_hash, verify_inclusion
from custody.crypto.notekeys import from_base64, to_base64
from custody.errors import Malformed
from custody.formats.checkpoint import (
    SignedCheckpoint,
    decode_checkpoint,
    parse_hash,
    parse_size,
)
from custody.formats.note import MAX_NOTE_BYTES, decode_text

MAX_PROOF_HASHES = 63
MAX_EXTRA_BYTES = 64 << 10
MAX_PROOF_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry is, the way from it to the head, and the signed head.

    ``extra`` is vouched for by nobody.
    """

    index: int
    hashes: tuple[bytes, ...]
    signed: SignedCheckpoint
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Write a ``.tlog-proof`` file."""
        extra = [] if self.extra is None else [f"extra {to_base64(self.extra)}"]
        lines = [_HEADER, *extra, f"index {self.index}", *map(to_base64, self.hashes), "", ""]
        return "\n".join(lines).encode() + self.signed.encode()

    def check_entry(self, entry: bytes) -> None:
        """Refuse (``log.inclusion``) unless ``entry`` is where this proof says.

        Who signed the head is another question: `LogPolicy.judge`.
        """
        head = self.signed.checkpoint
        verify_inclusion(
            leaf_hash(entry), self.index, size=head.size, proof=self.hashes, head=head.root
        )


def decode_proof(data: bytes) -> LogProof:
    """Read a ``.tlog-proof`` file."""
    if len(data) > MAX_PROOF_BYTES:
        raise Malformed(f"larger than the {MAX_PROOF_BYTES} bytes allowed")
    top, border, rest = data.partition(b"\n\n")
    if not border:
        raise Malformed("not a log proof: no empty line before the checkpoint")
    lines = decode_text(top).split("\n")
    if lines.pop(0) != _HEADER:
        raise Malformed(f"not a log proof: it does not begin with {_HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "))
        if len(extra) > MAX_EXTRA_BYTES:
            raise Malformed(f"more than {MAX_EXTRA_BYTES} bytes of extra data")
    if not lines or not lines[0].startswith("index "):
        raise Malformed("not a log proof: no index")
    index = parse_size(lines.pop(0).removeprefix("index "))
    if len(lines) > MAX_PROOF_HASHES:
        raise Malformed(f"more than {MAX_PROOF_HASHES} hashes")
    return LogProof(index, tuple(map(parse_hash, lines)), decode_checkpoint(rest), extra)
