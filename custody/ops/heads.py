"""What a home remembers of the logs it has seen, and the evidence where one contradicts itself.

::

    seen.json          the newest checkpoint of every log that was seen     (ops/home)
    evidence/…/        two checkpoints of one log that do not go together
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from custody.crypto.notekeys import NoteKey
from custody.encoding import Record, decode, encode, sha256
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, EntryProof
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.logpolicy import LogPolicy, trust_key
from custody.formats.logstate import SeenLog, SeenLogs
from custody.formats.witnessing import CosignRequest
from custody.log.reader import Conflict, Followed, clash, follow
from custody.log.storage import Source
from custody.ops.files import read_file, reading
from custody.ops.home import SEEN, Home, ensure_file, nothing_seen
from custody.ops.landing import replace_file
from custody.rules.heads import goes_with, links_of
from custody.rules.history import History, heads_in, histories_of, is_by
from custody.rules.situation import Situation

_TRIES = 8
_MAX_BYTES = 512 << 20

R = TypeVar("R", bound=Record)


def follow_log(
    home: Home, source: Source, policy: LogPolicy, *, heads: Sequence[SignedCheckpoint] = ()
) -> Followed:
    """Follow a log from what this home remembers of it, and remember what is found.

    ``heads`` are others that it has signed: they are held against what is served before that is
    remembered, so that a fork does not become what everything later is held against.

    Two heads that do not go together are `Refused` (``log.fork``, ``log.rollback``); where both lie
    as evidence is what the error names.
    """
    for _ in range(_TRIES):
        known = seen_logs(home)
        found = follow(source, policy, known)
        if isinstance(found, Conflict):
            raise refusal_with_evidence(home, found)
        _check_served(home, heads, found)
        origin = found.signed.checkpoint.origin
        with home.lock():
            # What another command saw in the meantime was not held against this tree: begin anew.
            if seen_logs(home).of(origin) == known.of(origin):
                remember_head(home, SEEN, found.signed)
                return found
    raise Refused("other commands followed the log each time", check="log.busy")


def follow_in(home: Home, situation: Situation, source: Source) -> Situation:
    """Read the log that the policy names, and prove each head among the documents part of it.

    Where the policy names no log, nothing is read.  A head that the log's key has signed and that
    is no part of what it shows now is a fork or a rollback, `Refused` with the evidence.
    """
    policy = situation.trusted.policy.log_policy()
    if policy is None:
        return situation
    documents, followed = link_heads(home, [policy], situation.documents, source)
    return replace(situation, documents=documents, seen=followed.signed)


def link_heads(
    home: Home, policies: Sequence[LogPolicy], documents: Documents, source: Source
) -> tuple[Documents, Followed]:
    """Follow a log; return the documents with a proof for each head in them, and what it shows.

    By the last of ``policies``; heads under keys that the others give the same log are of it too.
    Raises as `follow_in`.
    """
    heads = heads_of(documents, policies)
    followed = follow_log(home, source, policies[-1], heads=heads)
    links = [
        CosignRequest(size, followed.tree.consistency(size), followed.signed)
        for size in (head.checkpoint.size for head in heads)
    ]
    known = tuple(dict.fromkeys((*documents.consistencies, *links)))
    return replace(documents, consistencies=known), followed


def chain_heads(
    home: Home, policies: Sequence[LogPolicy], documents: Documents, source: Source
) -> tuple[CosignRequest, ...]:
    """Follow a log; return what ties the heads among the documents together, each to the next.

    What is returned depends on the heads and not on how far the log has come.  Raises as
    `follow_in`.
    """
    heads = heads_of(documents, policies)
    followed = follow_log(home, source, policies[-1], heads=heads)
    sizes = [head.checkpoint.size for head in heads]
    return tuple(
        CosignRequest(old, followed.tree.consistency_between(old, new), head)
        for (old, new), head in zip(pairwise(sizes), heads[1:], strict=True)
    )


def _check_served(home: Home, heads: Sequence[SignedCheckpoint], followed: Followed) -> None:
    for head in heads:
        if (conflict := clash(head, followed.signed)) is not None:
            raise refusal_with_evidence(home, conflict)
        if followed.tree.head_at(head.checkpoint.size) != head.checkpoint.root:
            raise refusal_with_evidence(home, Conflict("fork", head, followed.signed))


def advance_seen(home: Home, policy: LogPolicy, documents: Documents) -> SignedCheckpoint | None:
    """Remember the newest head of the policy's log that ``documents`` prove, under the home's lock.

    Returns the newest that was seen before.  Two heads among what was seen and what is here that
    are proven to be of two histories are a fork, `Refused` (``log.fork``), and both are kept.
    """
    before = seen = newest_head(home, SEEN, policy.logs[0].key.name)
    check_histories(
        home, histories_of(documents, [policy], remembered=() if seen is None else (seen,))
    )
    links = links_of(documents)
    for head in sorted(heads_of(documents, [policy]), key=lambda head: head.checkpoint.size):
        if seen is None or (
            head.checkpoint.size > seen.checkpoint.size
            and goes_with(seen.checkpoint, head.checkpoint, links)
        ):
            with suppress(Refused, Incomplete):
                policy.judge(head)
                remember_head(home, SEEN, head)
                seen = head
    return before


def check_proof(home: Home, key: NoteKey, given: EntryProof) -> None:
    """Refuse (``log.fork``) a proof that contradicts the newest head that was seen of a log."""
    seen = newest_head(home, SEEN, key.name)
    documents, known = Documents(proofs=(given,)), () if seen is None else (seen,)
    check_histories(home, histories_of(documents, [trust_key(key)], remembered=known))


def check_histories(home: Home, histories: Sequence[History]) -> None:
    """Refuse (``log.fork``) what is proven to be two histories of one log; both heads are kept."""
    for history in histories:
        if history.conflict is not None:
            raise refusal_with_evidence(home, Conflict("fork", *history.conflict))


def heads_of(documents: Documents, policies: Sequence[LogPolicy]) -> tuple[SignedCheckpoint, ...]:
    """Return the heads of one log among ``documents``, each once, by size: those that a key has
    signed which any of ``policies`` gives the log of the last one.
    """
    origin = policies[-1].logs[0].key.name
    found: dict[tuple[int, bytes], SignedCheckpoint] = {}
    for signed in heads_in(documents):
        checkpoint = signed.checkpoint
        if checkpoint.origin == origin and any(is_by(policy, signed) for policy in policies):
            found.setdefault((checkpoint.size, checkpoint.root), signed)
    return tuple(sorted(found.values(), key=lambda head: head.checkpoint.size))


def refusal_with_evidence(home: Home, conflict: Conflict) -> Refused:
    """Keep both heads of a conflict; return the error that says where they lie."""
    refusal = conflict.refusal()
    refusal.where = str(keep_evidence(home, conflict))
    return refusal


def keep_evidence(home: Home, conflict: Conflict) -> Path:
    """Write both heads of a conflict where they stay; return the folder."""
    remembered, offered = conflict.remembered.encode(), conflict.offered.encode()
    name = f"{conflict.kind}-{sha256(remembered, offered).hex()[:16]}"
    folder = home.folder("evidence", name)
    for file, data in (("remembered.checkpoint", remembered), ("offered.checkpoint", offered)):
        ensure_file(folder / file, data)
    return folder


def newest_head(home: Home, name: str, origin: str) -> SignedCheckpoint | None:
    """Return the newest checkpoint of a log that a home's file of that name holds."""
    log = seen_logs(home, name).of(origin)
    return None if log is None else decode_checkpoint(log.note)


def remember_head(home: Home, name: str, signed: SignedCheckpoint) -> None:
    """Put a checkpoint into a home's file, in the place of its log's; call it under the lock."""
    log = SeenLog(origin=signed.checkpoint.origin, note=signed.encode())
    replace_file(home.path / name, encode(seen_logs(home, name).with_log(log)))


def seen_logs(home: Home, name: str = SEEN) -> SeenLogs:
    """Return the newest checkpoint of every log that a home has seen, or has cosigned.

    Such a file is the first that a home has, and says that nothing was seen.  So one that is gone
    was lost, and with it why a log's word was to be doubted: `Refused` (``log.rewound``).
    """
    found = load_record(home, SeenLogs, name)
    if found is None:
        if name == SEEN and home.is_fresh():
            return nothing_seen()
        raise lost(home, name)
    return found


def lost(home: Home, name: str) -> Refused:
    """Say that a home's memory of a log is gone."""
    return Refused(
        f"{name} is gone: what this home knows of logs cannot be told from first contact",
        check="log.rewound",
        where=str(home.path),
        hint=f"bring {name} back from a backup, or begin a new home",
    )


def load_record(home: Home, kind: type[R], name: str) -> R | None:
    """Read a record of a home, None if there is none."""
    path = home.path / name
    if not path.exists():
        return None
    with reading(path):
        return decode(kind, read_file(path, max_bytes=_MAX_BYTES), max_bytes=_MAX_BYTES)
