"""What a home remembers of the logs it has seen, and the evidence where one contradicts itself.

::

    seen.json          the newest checkpoint of every log that was seen     (formats/logstate)
    evidence/…/        two checkpoints of one log that do not go together
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from custody.encoding import Record, decode, encode, sha256
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.logpolicy import LogPolicy
from custody.formats.logstate import SeenLog, SeenLogs
from custody.formats.witnessing import CosignRequest
from custody.log.reader import Conflict, Followed, clash, follow
from custody.log.storage import Source
from custody.ops.files import read_file, reading
from custody.ops.home import Home
from custody.ops.landing import replace_file, write_new_file
from custody.rules.heads import goes_with, links_of
from custody.rules.situation import Situation

SEEN = "seen.json"
_MAX_BYTES = 512 << 20

R = TypeVar("R", bound=Record)


def follow_log(home: Home, source: Source, policy: LogPolicy) -> Followed:
    """Follow a log from what this home remembers of it, and remember what is found.

    Two heads that do not go together are `Refused` (``log.fork``, ``log.rollback``); where both lie
    as evidence is what the error names.
    """
    found = follow(source, policy, seen_logs(home))
    if isinstance(found, Conflict):
        raise refusal_with_evidence(home, found)
    with home.lock():
        # Another command may have gone further in the meantime.
        newest = newest_head(home, SEEN, found.signed.checkpoint.origin)
        if newest is None or clash(newest, found.signed) is None:
            remember_head(home, SEEN, found.signed)
    return found


def follow_in(home: Home, situation: Situation, source: Source) -> Situation:
    """Read the log that the policy names, and prove each head among the documents part of it.

    Where the policy names no log, nothing is read.  A head that the log's key has signed and that
    is no part of what it shows now is a fork, `Refused` with the evidence.
    """
    policy = situation.trusted.policy.log_policy()
    if policy is None:
        return situation
    documents, seen = link_heads(home, policy, situation.documents, source)
    return replace(situation, documents=documents, seen=seen)


def link_heads(
    home: Home, policy: LogPolicy, documents: Documents, source: Source
) -> tuple[Documents, SignedCheckpoint]:
    """Follow a log; return the documents with a proof for each head in them, and its newest head.

    Raises as `follow_in`.
    """
    followed = follow_log(home, source, policy)
    links = []
    for head in heads_of(documents, policy):
        checkpoint = head.checkpoint
        if checkpoint.size > followed.tree.size:
            continue
        if followed.tree.head_at(checkpoint.size) != checkpoint.root:
            raise refusal_with_evidence(home, Conflict("fork", head, followed.signed))
        proof = followed.tree.consistency(checkpoint.size)
        links.append(CosignRequest(checkpoint.size, proof, followed.signed))
    known = tuple(dict.fromkeys((*documents.consistencies, *links)))
    return replace(documents, consistencies=known), followed.signed


def advance_seen(home: Home, policy: LogPolicy, documents: Documents) -> SignedCheckpoint | None:
    """Remember the newest head of the policy's log that ``documents`` prove, under the home's lock.

    Returns the newest that was seen before.  Two heads of one size among what was seen and what is
    here are a fork, `Refused` (``log.fork``), and both are kept.
    """
    before = seen = newest_head(home, SEEN, policy.logs[0].key.name)
    heads = heads_of(documents, policy)
    known = {} if seen is None else {seen.checkpoint.size: seen}
    for head in heads:
        other = known.setdefault(head.checkpoint.size, head)
        if other.checkpoint.root != head.checkpoint.root:
            raise refusal_with_evidence(home, Conflict("fork", other, head))
    links = links_of(documents)
    for head in sorted(heads, key=lambda head: head.checkpoint.size):
        if seen is None or (
            head.checkpoint.size > seen.checkpoint.size
            and goes_with(seen.checkpoint, head.checkpoint, links)
        ):
            with suppress(Refused, Incomplete):
                policy.judge(head)
                remember_head(home, SEEN, head)
                seen = head
    return before


def heads_of(documents: Documents, policy: LogPolicy) -> tuple[SignedCheckpoint, ...]:
    """Return the heads among ``documents`` that the policy's log has signed, each once."""
    found: dict[tuple[int, bytes], SignedCheckpoint] = {}
    for signed in _heads(documents):
        with suppress(Refused):
            policy.log_of(signed)
            found.setdefault((signed.checkpoint.size, signed.checkpoint.root), signed)
    return tuple(found.values())


def _heads(documents: Documents) -> Iterator[SignedCheckpoint]:
    notes: Iterable[bytes | None] = (
        *(request.predicate.checkpoint for request in documents.requests),
        *(word.predicate.checkpoint for word in documents.logged),
    )
    for note in notes:
        if note is not None:
            with suppress(Malformed):
                yield decode_checkpoint(note)
    yield from (proof.proof.signed for proof in documents.proofs)
    yield from (proof.signed for proof in documents.consistencies)


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
        if not (folder / file).exists():
            with suppress(FileExistsError):
                write_new_file(folder / file, data, mode=0o600)
    return folder


def newest_head(home: Home, name: str, origin: str) -> SignedCheckpoint | None:
    """Return the newest checkpoint of a log that a home's file of that name holds."""
    seen = load_record(home, SeenLogs, name)
    log = None if seen is None else seen.of(origin)
    return None if log is None else decode_checkpoint(log.note)


def remember_head(home: Home, name: str, signed: SignedCheckpoint) -> None:
    """Put a checkpoint into a home's file, in the place of its log's; call it under the lock."""
    seen = load_record(home, SeenLogs, name) or nothing_seen()
    log = SeenLog(origin=signed.checkpoint.origin, note=signed.encode())
    replace_file(home.path / name, encode(seen.with_log(log)))


def seen_logs(home: Home) -> SeenLogs:
    """Return the newest checkpoint of every log that a home has seen."""
    return load_record(home, SeenLogs, SEEN) or nothing_seen()


def load_record(home: Home, kind: type[R], name: str) -> R | None:
    """Read a record of a home, None if there is none."""
    path = home.path / name
    if not path.exists():
        return None
    with reading(path):
        return decode(kind, read_file(path, max_bytes=_MAX_BYTES), max_bytes=_MAX_BYTES)


def nothing_seen() -> SeenLogs:
    """Return the memory of who has seen no log."""
    return SeenLogs(kind="custody/logs-seen/v1", logs=())
