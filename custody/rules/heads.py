"""Are two heads of a log of one history?  By consistency proofs, which anybody may bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from custody.crypto.merkle import verify_consistency
from custody.errors import Malformed, Refused
from custody.formats.asking import Asking
from custody.formats.case import Documents
from custody.formats.checkpoint import Checkpoint, decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.witnessing import CosignRequest

#: A size and the root of that size.
Head = tuple[int, bytes]


def goes_with(one: Checkpoint, other: Checkpoint, proofs: Sequence[CosignRequest]) -> bool:
    """Whether ``proofs`` show two heads of one log to be of one history.

    Either is the beginning of the other, or both are of a third: hashes tie heads together, so that
    those in between need no other proof.
    """
    if one.origin != other.origin:
        return False
    by_size: dict[int, list[CosignRequest]] = {}
    for proof in proofs:
        if proof.signed.checkpoint.origin == one.origin:
            by_size.setdefault(proof.old_size, []).append(proof)
    return not _later(_head(one), by_size).isdisjoint(_later(_head(other), by_size))


def links_of(documents: Documents, *requests: Statement[Asking]) -> tuple[CosignRequest, ...]:
    """Return the consistency proofs among ``documents``, and those in logs' words on requests.

    Each word proves that its checkpoint continues the one in its request, which is among
    ``documents`` or ``requests``.
    """
    asked = {request.digest: request for request in (*documents.asked, *requests)}
    links = list(documents.consistencies)
    for word in documents.logged:
        request = asked.get(word.predicate.request)
        if request is None or request.predicate.checkpoint is None:
            continue
        with suppress(Malformed):
            old = decode_checkpoint(request.predicate.checkpoint).checkpoint.size
            new = decode_checkpoint(word.predicate.checkpoint)
            links.append(CosignRequest(old, word.predicate.consistency, new))
    return tuple(links)


def _head(checkpoint: Checkpoint) -> Head:
    return checkpoint.size, checkpoint.root


def _later(start: Head, proofs: Mapping[int, Sequence[CosignRequest]]) -> set[Head]:
    """Return a head and those that are proven to begin with it."""
    found, todo = {start}, [start]
    while todo:
        size, root = todo.pop()
        for proof in proofs.get(size, ()):
            new = _head(proof.signed.checkpoint)
            if new in found:
                continue
            try:
                verify_consistency(size, root, *new, proof=proof.proof)
            except Refused:
                continue
            found.add(new)
            todo.append(new)
    return found
