"""What a log asks of a witness.  Format: C2SP tlog-witness, add-checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from custody.crypto.notekeys import to_base64
from custody.errors import Malformed
from custody.formats.checkpoint import (
    SignedCheckpoint,
    decode_checkpoint,
    parse_hash,
    parse_size,
)
from custody.formats.logproof import MAX_PROOF_HASHES
from custody.formats.note import MAX_NOTE_BYTES, decode_text

MAX_REQUEST_BYTES = MAX_NOTE_BYTES + (8 << 10)
#: The media type of a 409's body, which is a tree size.
SIZE_MEDIA_TYPE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class CosignRequest:
    """A head to cosign, and the proof that it follows from the one of ``old_size`` entries."""

    old_size: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint

    def encode(self) -> bytes:
        """Write the body of an add-checkpoint request."""
        lines = [f"old {self.old_size}", *map(to_base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.signed.encode()


def decode_cosign_request(data: bytes) -> CosignRequest:
    """Read the body of an add-checkpoint request."""
    if len(data) > MAX_REQUEST_BYTES:
        raise Malformed(f"larger than the {MAX_REQUEST_BYTES} bytes allowed")
    top, border, rest = data.partition(b"\n\n")
    first, *hashes = decode_text(top).split("\n")
    if not border or not first.startswith("old "):
        raise Malformed("not a request to cosign")
    if len(hashes) > MAX_PROOF_HASHES:
        raise Malformed(f"more than {MAX_PROOF_HASHES} hashes")
    size = parse_size(first.removeprefix("old "))
    return CosignRequest(size, tuple(map(parse_hash, hashes)), decode_checkpoint(rest))
