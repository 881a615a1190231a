"""Appending to a log, so that it can be killed anywhere and no two heads ever disagree.

A batch goes four steps, each durable before the next:

1. the entries, and the tree they follow, are written down as *pending* (compare-and-swap);
2. tiles and bundles of the grown tree are written: all follow from 1 and from the tree before;
3. the new head is promised in the log's own home, then signed, and cosigned if witnesses are asked;
4. the checkpoint is replaced (compare-and-swap).

Whoever finds a pending batch on the tree that the checkpoint shows carries it out first.  So two
writers at once write the same bytes, and one that died is finished by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from custody.crypto.merkle import leaf_hash, root
from custody.crypto.notekeys import LogSigner
from custody.encoding import decode, encode
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.checkpoint import (
    Checkpoint,
    SignedCheckpoint,
    check_signed_by,
    decode_checkpoint,
    sign_checkpoint,
)
from custody.formats.logstate import MAX_BATCH, MAX_PENDING_BYTES, Pending, SignedHead
from custody.formats.note import MAX_NOTE_BYTES, NoteSignature
from custody.formats.tiles import (
    CHECKPOINT_PATH,
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    TilePlace,
    join_bundle,
)
from custody.log.storage import Store, Stored
from custody.log.tree import Hashes, Tree, grow

PENDING_PATH = "pending"
#: How often a writer that loses a race begins again.
_TRIES = 8


class Ledger(Protocol):
    """What a log remembers of its own heads, in a place that no copy of the log restores."""

    def last(self) -> SignedHead | None:
        """Return the newest head promised."""

    def promise(self, head: SignedHead) -> None:
        """Write down a head that is about to be signed, before it is.

        Raises `Refused` with check ``store.changed`` where a larger one was promised meanwhile,
        and ``log.rewound`` where another one of this size was: that one must never be signed.
        """


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch is: its first entry's index, how many, and a checkpoint that covers it."""

    start: int
    count: int
    signed: SignedCheckpoint


#: Asks witnesses for their signatures on a head, whose tree is already written.
Cosigning = Callable[[SignedCheckpoint, Tree], Sequence[NoteSignature]]


@dataclass(frozen=True, slots=True)
class _State:
    """The log as it lies in the store, and what is needed to grow it."""

    signed: SignedCheckpoint
    version: str
    edge: tuple[Hashes, ...]
    tail: tuple[bytes, ...]
    pending: Pending | None
    pending_version: str | None

    @property
    def checkpoint(self) -> Checkpoint:
        return self.signed.checkpoint


def create_log(store: Store, signer: LogSigner, ledger: Ledger) -> SignedCheckpoint:
    """Begin a log with no entries; a store or a key that has one is `Refused` (``log.exists``)."""
    empty = Checkpoint(signer.name, 0, root(()))
    last = ledger.last()
    if last is not None and last != _promised(empty):
        raise Refused("this key has signed a log already", check="log.exists")
    # The promise comes first here too: killed between, init can be run again.
    ledger.promise(_promised(empty))
    signed = sign_checkpoint(empty, signer)
    try:
        store.swap(CHECKPOINT_PATH, signed.encode(), version=None)
    except Refused as error:
        raise _there_already() from error
    return signed


def check_no_log(store: Store) -> None:
    """Refuse (``log.exists``) a store in which there is a log."""
    if store.look(CHECKPOINT_PATH, max_bytes=MAX_NOTE_BYTES) is not None:
        raise _there_already()


def _there_already() -> Refused:
    return Refused(
        "there is a log already",
        check="log.exists",
        hint="it goes on: custody log append; another one takes another place and another --home",
    )


class Writer:
    """The one that appends to a log; others may try at the same time, and do no harm."""

    def __init__(
        self, store: Store, signer: LogSigner, ledger: Ledger, *, cosigning: Cosigning | None = None
    ) -> None:
        """Take the log in ``store``; what an earlier run left unfinished is done when first used.

        With ``cosigning`` no head is published before it has returned, and if it raises, the batch
        stays pending.
        """
        self._store = store
        self._signer = signer
        self._ledger = ledger
        self._cosigning = cosigning
        self._state: _State | None = None

    def latest(self) -> SignedCheckpoint:
        """Return the log's checkpoint, after finishing what was left unfinished."""
        self._state = None
        return self._settled().signed

    def append(self, entries: Sequence[bytes]) -> Appended:
        """Append one batch; it is in the log, durably and signed, when this returns.

        The same batch twice in a row is appended once: so who was killed before he knew may try
        again.
        """
        batch = tuple(entries)
        _check_batch(batch)
        for _ in range(_TRIES):
            state = self._settled()
            if (done := _already(state, batch)) is not None:
                return done
            try:
                state = self._intend(state, batch)
                state = self._carry_out(state)
            except Refused as error:
                self._state = None
                # Another writer was faster; what he wrote is read anew and counted in.
                if error.check != "store.changed":
                    raise
                continue
            except BaseException:
                self._state = None
                raise
            self._state = state
            return Appended(state.checkpoint.size - len(batch), len(batch), state.signed)
        raise Refused("other writers were faster each time", check="log.busy")

    def add_cosignatures(self, cosigning: Cosigning) -> SignedCheckpoint:
        """Have witnesses cosign the checkpoint that is published, and publish it with theirs."""
        state = self._settled()
        more = cosigning(state.signed, self._tree(state.checkpoint))
        signed = state.signed.with_signatures(*more)
        self._state = None
        if signed != state.signed:
            self._store.swap(CHECKPOINT_PATH, signed.encode(), version=state.version)
        return signed

    def _settled(self) -> _State:
        """Return the log with nothing pending."""
        for _ in range(_TRIES):
            state = self._state or self._load()
            if not _is_open(state):
                self._state = state
                return state
            try:
                self._state = self._carry_out(state)
            except Refused as error:
                if error.check != "store.changed":
                    raise
                self._state = None
        raise Refused("other writers were faster each time", check="log.busy")

    def _load(self) -> _State:
        # Each is read before what is written after it.  So another writer's step in between shows
        # as work that is done already, and never as a log that lacks what was signed.
        last = self._ledger.last()
        pending = self._store.look(PENDING_PATH, max_bytes=MAX_PENDING_BYTES)
        stored = self._store.look(CHECKPOINT_PATH, max_bytes=MAX_NOTE_BYTES)
        if stored is None:
            raise Incomplete(
                "there is no log here", missing=("a checkpoint",), hint="custody log init --help"
            )
        signed = decode_checkpoint(stored.data)
        check_signed_by(signed, self._signer.note_key)
        checkpoint = signed.checkpoint
        _check_promised(checkpoint, self._ledger.last())
        tree = self._tree(checkpoint)
        index, width = divmod(checkpoint.size, TILE_WIDTH)
        state = _State(
            signed=signed,
            version=stored.version,
            edge=tree.edge,
            tail=tree.bundle(index) if width else (),
            pending=_read_pending(pending),
            pending_version=None if pending is None else pending.version,
        )
        _check_not_rewound(state, tree, last)
        return state

    def _intend(self, state: _State, batch: tuple[bytes, ...]) -> _State:
        checkpoint = state.checkpoint
        pending = Pending(
            kind="custody/log-pending/v1",
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            entries=batch,
        )
        version = self._store.swap(PENDING_PATH, encode(pending), version=state.pending_version)
        return _State(state.signed, state.version, state.edge, state.tail, pending, version)

    def _carry_out(self, state: _State) -> _State:
        promised, objects, edge, tail = _grown(state)
        self._store.create(objects)
        checkpoint = Checkpoint(promised.origin, promised.size, promised.root)
        self._ledger.promise(promised)
        signed = sign_checkpoint(checkpoint, self._signer)
        if self._cosigning is not None:
            signed = signed.with_signatures(*self._cosigning(signed, self._tree(checkpoint)))
        version = self._store.swap(CHECKPOINT_PATH, signed.encode(), version=state.version)
        return _State(signed, version, edge, tail, state.pending, state.pending_version)

    def _tree(self, checkpoint: Checkpoint) -> Tree:
        return Tree(self._store, size=checkpoint.size, head=checkpoint.root)


def _check_promised(checkpoint: Checkpoint, last: SignedHead | None) -> None:
    """Refuse (``log.rewound``) a log that its own home knows nothing of.

    Each head is promised before it is published, and this is read after it was found: a home that
    lacks it was restored, or is another's, and what else it has signed nobody here can tell.
    """
    if last is None or last.size < checkpoint.size:
        raise Refused(
            f"{checkpoint.size} entries are signed and published, of which the log's home promised "
            f"{'none' if last is None else last.size}",
            check="log.rewound",
            hint="was the home restored from a backup? bring back the last one, or begin a new log",
        )


def _check_not_rewound(state: _State, tree: Tree, last: SignedHead | None) -> None:
    """Refuse (``log.rewound``) a store that lacks what this log has already signed.

    A restored backup is the usual reason; appending to it would sign a second history.
    """
    size, pending = state.checkpoint.size, state.pending
    if pending is not None:
        if pending.origin != state.checkpoint.origin:
            raise Refused("the pending batch is another log's", check="log.origin")
        if pending.size > size or tree.head_at(pending.size) != pending.root:
            raise _rewound()
    if last is None:
        raise _rewound()
    if last.size <= size:
        consistent = tree.head_at(last.size) == last.root
    else:
        # Promised, signed perhaps, but not published: only that very batch may follow.
        consistent = _is_open(state) and _grown(state)[0] == last
    if not consistent:
        raise _rewound()


def _is_open(state: _State) -> bool:
    """Whether the pending batch is still to be published."""
    pending = state.pending
    return pending is not None and bool(pending.entries) and pending.size == state.checkpoint.size


def _already(state: _State, batch: tuple[bytes, ...]) -> Appended | None:
    """Find a batch that is empty, or that was the last one."""
    pending, size = state.pending, state.checkpoint.size
    if not batch:
        return Appended(size, 0, state.signed)
    if pending is None or pending.entries != batch or pending.size + len(batch) != size:
        return None
    return Appended(pending.size, len(batch), state.signed)


def _grown(
    state: _State,
) -> tuple[SignedHead, list[tuple[str, bytes]], tuple[Hashes, ...], tuple[bytes, ...]]:
    """Work out the head, the objects, the edge and the tail that follow from a pending batch."""
    pending = state.pending
    if pending is None:
        raise ValueError("nothing is pending")
    growth = grow(state.edge, pending.size, [leaf_hash(entry) for entry in pending.entries])
    entries = (*state.tail, *pending.entries)
    first = pending.size // TILE_WIDTH
    full = len(entries) // TILE_WIDTH
    objects = list(growth.tiles)
    for n, at in enumerate(range(0, len(entries), TILE_WIDTH)):
        bundle = entries[at : at + TILE_WIDTH]
        objects.append((TilePlace(None, first + n, len(bundle)).path(), join_bundle(bundle)))
    size = pending.size + len(pending.entries)
    head = _promised(Checkpoint(pending.origin, size, growth.head()))
    return head, objects, growth.edge, entries[full * TILE_WIDTH :]


def _promised(checkpoint: Checkpoint) -> SignedHead:
    return SignedHead(
        kind="custody/log-head/v1",
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
    )


def _read_pending(stored: Stored | None) -> Pending | None:
    if stored is None:
        return None
    return decode(Pending, stored.data, max_bytes=MAX_PENDING_BYTES)


def _check_batch(batch: tuple[bytes, ...]) -> None:
    if len(batch) > MAX_BATCH:
        raise Malformed(f"more than {MAX_BATCH} entries in one batch")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in batch):
        raise Malformed(f"an entry of more than {MAX_ENTRY_BYTES} bytes")


def _rewound() -> Refused:
    return Refused(
        "the store lacks what this log has already signed",
        check="log.rewound",
        hint="was it restored from a backup? bring back what came after, or begin a new log",
    )
