"""A log in memory, its key, and its entries."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from custody.crypto.merkle import leaf_hash, root
from custody.crypto.notekeys import LogSigner, WitnessSigner
from custody.formats.checkpoint import Checkpoint, SignedCheckpoint, sign_checkpoint
from custody.formats.logentry import LogEntry
from custody.formats.logpolicy import LogPolicy, trust_key
from custody.formats.logstate import SeenLogs
from custody.log.writer import Writer, create_log
from tests.sim.store import MemoryLedger, MemoryStore

ORIGIN = "log.example.com/models"
NOTHING = SeenLogs(kind="custody/logs-seen/v1", logs=())


@cache
def signer(name: str = ORIGIN) -> LogSigner:
    """A log's key, the same for a name in one run."""
    return LogSigner(name, ec.generate_private_key(ec.SECP256R1()))


@cache
def witness_signer(name: str = "w1.example.com") -> WitnessSigner:
    """A witness's key."""
    return WitnessSigner(name, ed25519.Ed25519PrivateKey.generate())


def trust() -> LogPolicy:
    """Trust the log by its key."""
    return trust_key(signer().note_key)


def entries(start: int, end: int, *, salt: str = "") -> list[bytes]:
    """Numbered entries."""
    return [
        LogEntry(digest=leaf_hash(f"{salt}{n}".encode()).hex(), kind="approval").encode()
        for n in range(start, end)
    ]


def new_log(store: MemoryStore | None = None) -> tuple[MemoryStore, MemoryLedger]:
    """An empty log."""
    store = store or MemoryStore()
    ledger = MemoryLedger()
    create_log(store, signer(), ledger)
    return store, ledger


def grown(count: int, *, batch: int = 1000, salt: str = "") -> tuple[MemoryStore, MemoryLedger]:
    """A log with ``count`` entries."""
    store, ledger = new_log()
    writer = Writer(store, signer(), ledger)
    for at in range(0, count, batch):
        writer.append(entries(at, min(count, at + batch), salt=salt))
    return store, ledger


def head(rows: list[bytes], *, origin: str = ORIGIN) -> Checkpoint:
    """The checkpoint of a list of entries, by definition."""
    return Checkpoint(origin, len(rows), root(map(leaf_hash, rows)))


def signed(rows: list[bytes]) -> SignedCheckpoint:
    """The same, signed by the log."""
    return sign_checkpoint(head(rows), signer())
