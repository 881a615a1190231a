"""The examples of checkpoint.md: a log of three entries, cosigned by one witness.

Everything follows from words (`fixed`), so that ``python -m tests.unit.formats.log_examples``
writes the same files and the same blocks wherever it runs.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from custody import formats
from custody.crypto.merkle import leaf_hash, node_hash, root
from custody.crypto.notekeys import KeyKind, NoteKey, WitnessSigner
from custody.formats.checkpoint import Checkpoint, SignedCheckpoint, cosign_checkpoint
from custody.formats.envelope import decode_envelope
from custody.formats.logentry import entry_of
from custody.formats.logproof import LogProof
from custody.formats.note import Note, signature_by
from custody.formats.witnessing import CosignRequest
from tests.unit.formats.fixed import octets, sign, spki

DOCUMENT = Path(formats.__file__).parent / "checkpoint.md"
VECTORS = Path(__file__).parents[2] / "vectors"
BLOCK = re.compile(r"^```text example=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ORIGIN = "log.example.com/models"
SECONDS = 1_799_150_400
STATEMENTS = ("approval/alice.dsse", "approval/bob.dsse", "approval/denial.dsse")


@cache
def log_key() -> NoteKey:
    """The log's key."""
    return NoteKey(ORIGIN, KeyKind.ECDSA, spki("log"))


def witness() -> WitnessSigner:
    """The witness."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(octets("witness"))
    return WitnessSigner("w1.example.com", key)


def entries() -> list[bytes]:
    """The entries of three answers."""
    files = (VECTORS / name for name in STATEMENTS)
    return [entry_of(decode_envelope(file.read_bytes())).encode() for file in files]


def leaves() -> list[bytes]:
    """Their leaf hashes."""
    return [leaf_hash(entry) for entry in entries()]


def signed() -> SignedCheckpoint:
    """The log's checkpoint."""
    checkpoint = Checkpoint(ORIGIN, 3, root(leaves()))
    text = checkpoint.text()
    line = signature_by(log_key(), sign("log", text.encode()))
    return SignedCheckpoint(checkpoint, Note(text, (line,)))


def cosigned() -> SignedCheckpoint:
    """The same, cosigned."""
    return signed().with_signatures(
        cosign_checkpoint(signed().checkpoint, witness(), seconds=SECONDS)
    )


def examples() -> dict[str, bytes]:
    """Every example by its name, which is that of its file."""
    first, second, third = leaves()
    policy = (
        f"log {log_key().vkey}\n\n"
        f"witness w1 {witness().note_key.vkey} https://w1.example.com\nquorum w1\n"
    )
    return {
        "entries": b"".join(entry + b"\n" for entry in entries()),
        "checkpoint": cosigned().encode(),
        "logs.policy": policy.encode(),
        "denial.tlog-proof": LogProof(2, (node_hash(first, second),), cosigned()).encode(),
        "add-checkpoint": CosignRequest(1, (second, third), signed()).encode(),
    }


def main() -> None:
    """Write the files, and put the blocks of the document into their places."""
    made = examples()
    for name, data in made.items():
        (VECTORS / "checkpoint" / f"example.{name}").write_bytes(data)
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(
        BLOCK.sub(lambda m: f"```text example={m[1]}\n{made[m[1]].decode()}```", text)
    )


if __name__ == "__main__":
    main()
