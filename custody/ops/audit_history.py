"""Whether the heads of a log that a case shows are of one history."""

from __future__ import annotations

from custody.encoding import Digest
from custody.formats.case import Documents
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.logstate import SeenLogs
from custody.rules.history import History, histories_of, judge_history, logs_of
from custody.rules.verdicts import Ledger


def judge_histories(
    ledger: Ledger, documents: Documents, *, pin: Digest, seen: SeenLogs | None
) -> tuple[History, ...]:
    """Judge every log that the policies after ``pin`` name; what an auditor has seen counts too."""
    remembered = [decode_checkpoint(log.note) for log in (seen.logs if seen else ())]
    found = histories_of(documents, logs_of(documents, pin=pin), remembered=remembered)
    for history in found:
        judge_history(ledger, history)
    return found
