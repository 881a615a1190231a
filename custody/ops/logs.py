"""Keeping a log, and being a witness, each with a home to remember in.

::

    log.json           the log a home writes, by which key                  (formats/logstate)
    head.json          the newest head it has promised
    witness.json       a witness's name and key
    clock.json         the latest time at which it was written
    witnessed.json     the newest checkpoint of every log that was cosigned
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from custody.crypto.merkle import root
from custody.crypto.notekeys import KeyKind, LogSigner, NoteKey, WitnessSigner, check_name
from custody.crypto.secret import fresh_secret
from custody.encoding import (
    MAX_STATEMENT_BYTES,
    Bytes32,
    Record,
    encode,
    format_time,
    key_id,
)
from custody.errors import Incomplete, Refused
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.envelope import decode_envelope
from custody.formats.logentry import LogEntry, entry_of
from custody.formats.logpolicy import LogPolicy
from custody.formats.logstate import LogClock, LogIdentity, SignedHead
from custody.formats.note import NoteSignature
from custody.keys.api import KeyRole, Token
from custody.log.storage import Source, Store
from custody.log.tree import Tree
from custody.log.witness import Answer, Post, Witness, ask_witnesses
from custody.log.writer import Cosigning, Writer, check_no_log, create_log
from custody.ops.folders import read_file, reading
from custody.ops.heads import (
    keep_evidence,
    load_record,
    lost,
    newest_head,
    remember_head,
    seen_logs,
)
from custody.ops.home import Home, ensure_file, nothing_seen
from custody.ops.landing import replace_file, write_new_file

_LOG = "log.json"
_HEAD = "head.json"
_WITNESS = "witness.json"
_CLOCK = "clock.json"
_WITNESSED = "witnessed.json"
#: How far a clock may go back: what setting it right takes.
_SLACK = timedelta(minutes=5)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class WitnessIdentity(Record, frozen=True):
    """A witness's name and private key, which has this file as its only home."""

    kind: Literal["custody/witness/v1"]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    seed: Bytes32

    def __repr__(self) -> str:
        return f"WitnessIdentity(name={self.name!r})"

    def signer(self) -> WitnessSigner:
        """Return the key."""
        return WitnessSigner(self.name, ed25519.Ed25519PrivateKey.from_private_bytes(self.seed))


class HomeLedger:
    """A log's own heads, in its home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def last(self) -> SignedHead | None:
        """Return the newest head promised; one that is gone is `Refused` (``log.rewound``)."""
        found = load_record(self._home, SignedHead, _HEAD)
        if found is None and load_record(self._home, LogIdentity, _LOG) is not None:
            raise lost(self._home, _HEAD)
        return found

    def promise(self, head: SignedHead) -> None:
        """Write down a head that is about to be signed."""
        with self._home.lock():
            last = self.last()
            if last is not None and last.size > head.size:
                raise Refused("another writer is ahead", check="store.changed")
            if last is not None and last.size == head.size and last != head:
                raise Refused("this log has signed another head of this size", check="log.rewound")
            if last != head:
                replace_file(self._home.path / _HEAD, encode(head))


class HomeWitnessed:
    """What a witness has cosigned, in its home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def latest(self, origin: str) -> SignedCheckpoint | None:
        """Return the newest checkpoint of a log."""
        return newest_head(self._home, _WITNESSED, origin)

    def advance(self, signed: SignedCheckpoint, *, after: SignedCheckpoint | None) -> bool:
        """Put ``signed`` in the place of ``after``; False if something else is there."""
        origin = signed.checkpoint.origin
        with self._home.lock():
            if self.latest(origin) != after:
                return False
            remember_head(self._home, _WITNESSED, signed)
        return True


def init_log(
    home: Home, store: Store, token: Token, *, uri: str, origin: str, label: str
) -> NoteKey:
    """Make a log's key in a token, and the empty log signed by it; return the key to be told.

    Run again after it was killed, it goes on with the key it made.
    """
    check_may_begin(home, store, origin=origin)
    identity = load_record(home, LogIdentity, _LOG)
    if identity is None:
        _begin_log(home, origin)
        key = token.make(KeyRole.LOG, label, ec.SECP256R1())
        signer = LogSigner(origin, key)
        identity = LogIdentity(
            kind="custody/log/v1", origin=origin, token=uri, spki=signer.note_key.public
        )
        write_new_file(home.path / _LOG, encode(identity), mode=0o600)
    signer = log_signer(home, token)
    create_log(store, signer, HomeLedger(home))
    return signer.note_key


def check_may_begin(home: Home, store: Store, *, origin: str) -> None:
    """Refuse (``log.exists``) to begin a log in a home that keeps another, or where one is."""
    check_name(origin)
    identity = load_record(home, LogIdentity, _LOG)
    if identity is not None and identity.origin != origin:
        raise Refused(f"this home keeps the log {identity.origin}", check="log.exists")
    check_no_log(store)


def _begin_log(home: Home, origin: str) -> None:
    """Write down that nothing was signed yet.  Before the key is: who has one and lacks the other
    has lost what he signed, and would sign a second history.
    """
    empty = SignedHead(kind="custody/log-head/v1", origin=origin, size=0, root=root(()))
    with home.lock():
        last = load_record(home, SignedHead, _HEAD)
        if last is not None and last.size:
            raise Refused("this home has kept a log already", check="log.exists")
        replace_file(home.path / _HEAD, encode(empty))
        never = LogClock(kind="custody/log-clock/v1", at=_NEVER)
        ensure_file(home.path / _CLOCK, encode(never))


def log_identity(home: Home) -> LogIdentity:
    """Return which log a home keeps; none yet: `Incomplete`."""
    identity = load_record(home, LogIdentity, _LOG)
    if identity is None:
        raise Incomplete(
            "this home keeps no log",
            missing=("a log",),
            where=str(home.path),
            hint="custody log init --help",
        )
    return identity


def log_signer(home: Home, token: Token) -> LogSigner:
    """Find the key of a home's log in its token."""
    identity = log_identity(home)
    key = token.find(KeyRole.LOG, key_id=key_id(identity.spki))
    return LogSigner(identity.origin, key)


def open_writer(
    home: Home,
    store: Store,
    token: Token,
    *,
    now: datetime,
    cosigning: Cosigning | None = None,
) -> Writer:
    """Open a home's log to append to it; a clock set back is `Refused` (``log.clock``)."""
    advance_clock(home, now)
    return Writer(store, log_signer(home, token), HomeLedger(home), cosigning=cosigning)


def advance_clock(home: Home, now: datetime) -> None:
    """Refuse (``log.clock``) a time before the latest at which this home's log was written.

    By minutes a clock may be set right; further back it would date what it signs before what it
    has signed already.
    """
    with home.lock():
        known = load_record(home, LogClock, _CLOCK)
        if known is None and load_record(home, LogIdentity, _LOG) is not None:
            raise lost(home, _CLOCK)
        if known is not None and now < known.at - _SLACK:
            raise Refused(
                f"the clock was set back: this log was written at {format_time(known.at)}",
                check="log.clock",
                hint="set the machine's clock right",
            )
        if known is None or now > known.at:
            replace_file(home.path / _CLOCK, encode(LogClock(kind="custody/log-clock/v1", at=now)))


def tree_of(source: Source, signed: SignedCheckpoint) -> Tree:
    """Return the tree of a checkpoint, read from where the log lies."""
    return Tree(source, size=signed.checkpoint.size, head=signed.checkpoint.root)


def own_keys(home: Home) -> tuple[NoteKey, ...]:
    """Return the keys of the log and of the witness that a home is home to."""
    log, witness = (
        load_record(home, LogIdentity, _LOG),
        load_record(home, WitnessIdentity, _WITNESS),
    )
    keys = []
    if log is not None:
        keys.append(NoteKey(log.origin, KeyKind.ECDSA, log.spki))
    if witness is not None:
        keys.append(witness.signer().note_key)
    if not keys:
        raise Incomplete(
            "this home keeps no log and is no witness",
            missing=("a key",),
            where=str(home.path),
            hint="custody log init --help",
        )
    return tuple(keys)


def read_entry(path: Path) -> LogEntry:
    """Read the statement in a ``.dsse`` file, and make its entry."""
    with reading(path):
        return entry_of(decode_envelope(read_file(path, max_bytes=MAX_STATEMENT_BYTES)))


@dataclass(frozen=True, slots=True)
class AskAll:
    """Asks the witnesses of a policy, and is content only if they are a quorum of it."""

    policy: LogPolicy
    post: Post

    def __call__(self, signed: SignedCheckpoint, tree: Tree) -> Sequence[NoteSignature]:
        """Return their signatures; too few: `Incomplete`, saying why others gave none."""
        asked = ask_witnesses(self.policy.witnesses.items(), signed, tree, self.post)
        try:
            self.policy.judge(signed.with_signatures(*asked.signatures))
        except Incomplete as error:
            reasons = dict(asked.failures)
            missing = [f"{name}: {reasons.get(name, 'not asked')}" for name in error.missing]
            raise Incomplete(error.reason, missing=missing) from error
        return asked.signatures


def init_witness(home: Home, *, name: str) -> NoteKey:
    """Make a witness's key; return the public half to be told."""
    identity = WitnessIdentity(kind="custody/witness/v1", name=name, seed=bytes(fresh_secret()))
    key = identity.signer().note_key
    home.begin()
    ensure_file(home.path / _WITNESSED, encode(nothing_seen()))
    write_new_file(home.path / _WITNESS, encode(identity), mode=0o600)
    return key


def witness_signer(home: Home) -> WitnessSigner:
    """Return the key of a home's witness; none yet: `Incomplete`."""
    identity = load_record(home, WitnessIdentity, _WITNESS)
    if identity is None:
        raise Incomplete(
            "this home has no witness's key",
            missing=("a witness",),
            where=str(home.path),
            hint="custody log witness init --help",
        )
    seen_logs(home, _WITNESSED)
    return identity.signer()


def answer_as_witness(home: Home, policy: LogPolicy, body: bytes, *, seconds: int) -> Answer:
    """Answer an add-checkpoint request for the logs of ``policy``; a fork is kept as evidence."""
    logs = tuple(log.key for log in policy.logs)
    witness = Witness(witness_signer(home), logs, HomeWitnessed(home))
    answer = witness.add_checkpoint(body, seconds=seconds)
    if answer.conflict is not None:
        keep_evidence(home, answer.conflict)
    return answer
