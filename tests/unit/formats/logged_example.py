"""The example of logged.md: a log that has the manifest already, and is given the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from custody.crypto.merkle import Span, consistency_spans, inclusion_spans, leaf_hash, root
from custody.encoding import Digest
from custody.formats.checkpoint import Checkpoint, SignedCheckpoint, cosign_checkpoint
from custody.formats.logentry import LogEntry
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.note import Note, signature_by
from custody.formats.request import Terms
from tests.unit.formats.fixed import sign
from tests.unit.formats.log_examples import ORIGIN, log_key, witness

#: What the log has before; the request's checkpoint would be of these, if its policy asked.
BEFORE = 1


def logged(
    manifest: Digest, request: Digest, approvals: Sequence[Digest], terms: Terms, at: datetime
) -> Logged:
    """What the log says of one request and its approvals."""
    entries = [
        LogEntry(digest=manifest, kind="manifest"),
        LogEntry(digest=request, kind="request"),
        *(LogEntry(digest=approval, kind="approval") for approval in approvals),
    ]
    leaves = [leaf_hash(entry.encode()) for entry in entries]

    def hashes(spans: Sequence[Span]) -> tuple[bytes, ...]:
        return tuple(root(leaves[span.start : span.end]) for span in spans)

    return Logged(
        request=request,
        manifest=manifest,
        policy=terms.policy,
        terms=terms.digest().hex(),
        entries=tuple(
            LoggedStatement(
                statement=entry.digest,
                kind=entry.kind,
                index=index,
                proof=hashes(inclusion_spans(index, len(leaves))),
            )
            for index, entry in enumerate(entries)
            if index >= BEFORE
        ),
        checkpoint=_cosigned(leaves, at).encode(),
        consistency=hashes(consistency_spans(BEFORE, len(leaves))),
        terms_signature=sign("log", bytes(4) + terms.digest()),
        logged_at=at,
    )


def _cosigned(leaves: Sequence[bytes], at: datetime) -> SignedCheckpoint:
    checkpoint = Checkpoint(ORIGIN, len(leaves), root(leaves))
    text = checkpoint.text()
    line = signature_by(log_key(), sign("log", text.encode()))
    seconds = int(at.timestamp())
    return SignedCheckpoint(checkpoint, Note(text, (line,))).with_signatures(
        cosign_checkpoint(checkpoint, witness(), seconds=seconds)
    )
