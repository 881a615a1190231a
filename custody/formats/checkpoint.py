"""Checkpoints: the signed heads of logs.  Format: C2SP tlog-checkpoint; checkpoint.md."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from custody.crypto.notekeys import (
    KeyKind,
    LogSigner,
    NoteKey,
    WitnessSigner,
    from_base64,
    to_base64,
)
from custody.errors import Malformed, Refused
from custody.formats.note import (
    MAX_NOTE_BYTES,
    Note,
    NoteSignature,
    decode_note,
    encode_note,
    signature_by,
)

MAX_TREE_SIZE = 2**63 - 1
_HASH_BYTES = 32
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How many entries a log has, and the head (32 bytes) of the tree over them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Write the text that a log signs."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint in the note it came in.  Its signatures are not checked yet."""

    checkpoint: Checkpoint
    note: Note

    def encode(self) -> bytes:
        """Write the note."""
        return encode_note(self.note)

    def with_signatures(self, *more: NoteSignature) -> SignedCheckpoint:
        """Return this checkpoint with cosignatures added."""
        return SignedCheckpoint(self.checkpoint, self.note.with_signatures(*more))


def decode_checkpoint(data: bytes, *, max_bytes: int = MAX_NOTE_BYTES) -> SignedCheckpoint:
    """Read a signed checkpoint."""
    note = decode_note(data, max_bytes=max_bytes)
    return SignedCheckpoint(parse_checkpoint(note.text), note)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text; only what `Checkpoint.text` writes is taken."""
    *lines, rest = text.split("\n")
    if rest or len(lines) < 3 or not all(lines):
        raise Malformed("not a checkpoint: origin, size and root, a line each")
    return Checkpoint(lines[0], parse_size(lines[1]), parse_hash(lines[2]), tuple(lines[3:]))


def parse_size(text: str) -> int:
    """Read a tree size or an index: decimal, no leading zeros, below 2^63."""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise Malformed("not a decimal number below 2^63 without leading zeros")
    return int(text)


def parse_hash(text: str) -> bytes:
    """Read a line of base64 that holds one SHA-256 digest."""
    digest = from_base64(text)
    if len(digest) != _HASH_BYTES:
        raise Malformed("not a base64 SHA-256 digest")
    return digest


def sign_checkpoint(checkpoint: Checkpoint, signer: LogSigner) -> SignedCheckpoint:
    """Sign a head.  Whoever calls this has made sure that it follows from the last one signed."""
    text = checkpoint.text()
    line = signature_by(signer.note_key, signer.sign(text.encode()))
    return SignedCheckpoint(checkpoint, Note(text, (line,)))


def cosign_checkpoint(
    checkpoint: Checkpoint, signer: WitnessSigner, *, seconds: int
) -> NoteSignature:
    """Cosign a head as of a POSIX time; the caller has seen that it follows from the last one."""
    text = checkpoint.text().encode()
    return signature_by(signer.note_key, signer.cosign(text, seconds=seconds))


def check_signed_by(signed: SignedCheckpoint, key: NoteKey) -> None:
    """Refuse (``log.origin``, ``log.signature``) a checkpoint that is not the log's of ``key``.

    A log's key has its origin as name, so one log's key vouches for no other log.
    """
    if key.kind is KeyKind.COSIGNATURE:
        raise Refused("a witness's key signs for no log", check="log.signature")
    if signed.checkpoint.origin != key.name:
        raise Refused("the checkpoint is another log's", check="log.origin")
    if not signed.note.by(key):
        raise Refused("the log's key has not signed the checkpoint", check="log.signature")
