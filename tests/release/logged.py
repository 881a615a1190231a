"""A log beside the cast: in memory, with witnesses whose clocks the tests set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from custody.crypto.notekeys import LogSigner, WitnessSigner
from custody.encoding import encode
from custody.errors import CustodyError
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.checkpoint import SignedCheckpoint, cosign_checkpoint, decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.logpolicy import LogPolicy
from custody.formats.note import NoteSignature
from custody.formats.request import Request
from custody.formats.tiles import CHECKPOINT_PATH
from custody.keys.tpm import open_host
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.log.writer import Writer, create_log
from custody.ops.bundle import Bundle
from custody.ops.countersign import countersign
from custody.ops.heads import follow_in, follow_log
from custody.ops.home import SEEN, nothing_seen
from tests.release.cast import NOW, TREE, Cast
from tests.sim.store import MemoryLedger, MemoryStore

_HOMES = itertools.count()
ORIGIN = "log.example.com/models"


@dataclass
class Log:
    """A log, its key, and what its witnesses would say of the time."""

    signer: LogSigner = field(
        default_factory=lambda: LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1()))
    )
    witnesses: list[WitnessSigner] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    clock: datetime = NOW
    home: str = field(default_factory=lambda: f"log-{next(_HOMES)}")

    def __post_init__(self) -> None:
        create_log(self.store, self.signer, self.ledger)
        if self.witnesses:
            self.writer().add_cosignatures(self.cosign)

    def cosign(self, signed: SignedCheckpoint, tree: Tree) -> Sequence[NoteSignature]:
        """Have every witness cosign, at the clock's time."""
        seconds = int(self.clock.timestamp())
        return [
            cosign_checkpoint(signed.checkpoint, witness, seconds=seconds)
            for witness in self.witnesses
        ]

    def writer(self) -> Writer:
        """Open the log to append to it."""
        cosigning = self.cosign if self.witnesses else None
        return Writer(self.store, self.signer, self.ledger, cosigning=cosigning)

    @property
    def size(self) -> int:
        """How many entries it has."""
        return decode_checkpoint(self.store.objects[CHECKPOINT_PATH]).checkpoint.size

    @property
    def lines(self) -> tuple[str, ...]:
        """What a policy says that demands this log and all its witnesses."""
        names = [f"w{n}" for n in range(1, len(self.witnesses) + 1)]
        witnesses = zip(names, self.witnesses, strict=True)
        quorum = "none"
        groups = []
        if names:
            quorum, groups = "all-of-them", [f"group all-of-them all {' '.join(names)}"]
        return (
            f"log {self.signer.note_key.vkey}",
            *(f"witness {name} {witness.note_key.vkey}" for name, witness in witnesses),
            *groups,
            f"quorum {quorum}",
        )

    def copy(self) -> Log:
        """A second log of the same origin, by the same key, that begins as this one is."""
        twin = Log(self.signer, self.witnesses, clock=self.clock)
        twin.store.objects = dict(self.store.objects)
        twin.store.versions = dict(self.store.versions)
        twin.ledger.head = self.ledger.head
        return twin


def witness(name: str = "w1.example.com") -> WitnessSigner:
    """A witness with a new key."""
    return WitnessSigner(name, ed25519.Ed25519PrivateKey.generate())


class LoggedCast(Cast):
    """A cast whose policy demands a log."""

    def __init__(self, folder: Path, machine: Swtpm, log: Log) -> None:
        super().__init__(folder, machine, open_host(TpmUri(tcti=machine.tcti)), TREE)
        self.log = log
        self.brought = Documents()
        self.policies = [self.sign_policy(self.make_policy(logged=log.lines))]
        self.refresh()
        self.boot()
        self.enrol()

    @property
    def log_policy(self) -> LogPolicy:
        """Whose checkpoints the policy believes."""
        found = self.make_policy(logged=self.log.lines).log_policy()
        assert found is not None
        return found

    def follow(self, who: str) -> None:
        """Have somebody read the log, and remember its newest checkpoint."""
        follow_log(self.home(who), self.log.store, self.log_policy)

    def forget(self, who: str) -> None:
        """Have somebody forget what he saw of the log."""
        (self.home(who).path / SEEN).write_bytes(encode(nothing_seen()))

    def ask(self, bundle: Bundle, *, now: datetime = NOW) -> Statement[Request]:
        """Follow the log, then ask for a bundle."""
        self.follow("host")
        return self.request(bundle, now=now)

    def case_with(self, request: Statement[Request]) -> Documents:
        """Public files, a request, and what else was brought along."""
        return merge(self.documents, Documents(requests=(request,)), self.brought)

    def case(self, bundle: Bundle, request: Statement[Request], *answers: bytes) -> Documents:
        """What the log is sent: public files, manifest, request and answers."""
        files = [(f"answer-{n}.dsse", data) for n, data in enumerate(answers)]
        there = Documents(manifests=(bundle.statement,), requests=(request,))
        return merge(self.documents, there, sort_documents(files))

    def countersign(
        self,
        bundle: Bundle,
        request: Statement[Request],
        *answers: bytes,
        log: Log | None = None,
        now: datetime = NOW,
        documents: Documents | None = None,
    ) -> bytes:
        """Have the log append and sign."""
        log = log or self.log
        home = self.home(log.home)
        heap = merge(self.case(bundle, request, *answers), documents or Documents())
        situation = follow_in(home, self.situation(log.home, now=now, documents=heap), log.store)
        return countersign(
            request,
            home=home,
            situation=situation,
            store=log.store,
            writer=log.writer(),
            signer=log.signer,
        ).data

    def quorum(self, bundle: Bundle, request: Statement[Request]) -> list[bytes]:
        """The approvals of a minimal set."""
        return [self.approve(bundle, request, who) for who in ("sec1", "sec2", "lead1")]


def check_of(error: CustodyError) -> str:
    """Return the check an error names."""
    return str(getattr(error, "check", ""))
