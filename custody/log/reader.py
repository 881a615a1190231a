"""Following a log: never believing less than before, nor something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from custody.errors import Refused, Unavailable
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.logpolicy import LogPolicy, Vouched
from custody.formats.logproof import LogProof
from custody.formats.logstate import SeenLog, SeenLogs
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.tiles import CHECKPOINT_PATH, TILE_WIDTH
from custody.log.storage import Source
from custody.log.tree import Tree


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two heads of one log that do not go together, both signed by it: the evidence.

    ``fork``: one history is not the beginning of the other, and the log is proven dishonest or
    copied.  ``rollback``: the offered head is older than the remembered one, which a stale mirror
    shows too; who offers it is not to be believed, but the log may be honest.
    """

    kind: Literal["fork", "rollback"]
    remembered: SignedCheckpoint
    offered: SignedCheckpoint

    def refusal(self) -> Refused:
        """Say so as an error (``log.fork``, ``log.rollback``)."""
        old, new = self.remembered.checkpoint, self.offered.checkpoint
        if self.kind == "rollback":
            words = f"{new.size} entries are offered, where {old.size} were seen before"
        else:
            words = (
                f"two histories: {old.size} entries seen before, {new.size} offered that differ "
                f"(roots {old.root.hex()}, {new.root.hex()})"
            )
        return Refused(words, check=f"log.{self.kind}")


@dataclass(frozen=True, slots=True)
class Followed:
    """A checkpoint that is believed, who stands behind it, and its tree.

    ``seen`` is how many entries the remembered checkpoint had.
    """

    signed: SignedCheckpoint
    vouched: Vouched
    tree: Tree
    seen: int

    def remember(self, seen: SeenLogs) -> SeenLogs:
        """Return the memory that holds this checkpoint."""
        origin = self.signed.checkpoint.origin
        return seen.with_log(SeenLog(origin=origin, note=self.signed.encode()))

    def new_entries(self) -> Iterator[tuple[int, bytes]]:
        """Yield the entries since the remembered checkpoint, each checked against the tree."""
        return self.tree.entries(self.seen, self.tree.size)

    def prove(self, index: int) -> LogProof:
        """Make the proof that an entry is in this tree."""
        return LogProof(index, self.tree.inclusion(index), self.signed)

    def find(self, entry: bytes) -> int | None:
        """Return where an entry is first in the log; reads bundles from the first one on."""
        for tile in range(-(-self.tree.size // TILE_WIDTH)):
            bundle = self.tree.bundle(tile)
            if entry in bundle:
                return tile * TILE_WIDTH + bundle.index(entry)
        return None


def follow(source: Source, policy: LogPolicy, seen: SeenLogs) -> Followed | Conflict:
    """Read a log's checkpoint and hold it against the policy and against what was seen before.

    Raises as `LogPolicy.judge` and `Tree` do, and `Unavailable` where there is no checkpoint.
    """
    data = source.read(CHECKPOINT_PATH, max_bytes=MAX_NOTE_BYTES)
    if data is None:
        raise Unavailable("no log is served here", where=CHECKPOINT_PATH)
    signed = decode_checkpoint(data)
    policy.log_of(signed)
    checkpoint = signed.checkpoint
    before = seen.of(checkpoint.origin)
    remembered = None if before is None else decode_checkpoint(before.note)
    if remembered is not None and (conflict := clash(remembered, signed)):
        return conflict
    # Only now: a fork that no witness would cosign is still one that the log has signed.
    vouched = policy.judge(signed)
    tree = Tree(source, size=checkpoint.size, head=checkpoint.root)
    if remembered is None:
        return Followed(signed, vouched, tree, seen=0)
    old = remembered.checkpoint
    # Every hash of the tree is vouched for by the new head.  If the old head does not follow from
    # the same hashes, no consistency proof exists.
    if tree.head_at(old.size) != old.root:
        return Conflict("fork", remembered, signed)
    return Followed(signed, vouched, tree, seen=old.size)


def clash(remembered: SignedCheckpoint, offered: SignedCheckpoint) -> Conflict | None:
    """Compare two heads of one log as far as they alone tell."""
    old, new = remembered.checkpoint, offered.checkpoint
    if new.size < old.size:
        return Conflict("rollback", remembered, offered)
    if new.size == old.size and new.root != old.root:
        return Conflict("fork", remembered, offered)
    return None
