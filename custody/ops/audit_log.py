"""What the log has of an audited release, where its policy demands one."""

from __future__ import annotations

from collections.abc import Sequence

from custody.formats.asking import Ending
from custody.formats.envelope import Statement
from custody.formats.logentry import LogEntry, entry_of
from custody.rules.approvals import JudgedApproval, JudgedDenial
from custody.rules.consents import JudgedConsent
from custody.rules.logged import JudgedLogged, check_proven
from custody.rules.release import Judgement
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger


def judge_logging(
    ledger: Ledger,
    judgement: Judgement,
    receipts: Sequence[Statement[Ending]],
    situation: Situation,
) -> tuple[JudgedLogged, ...]:
    """Write down what is logged of a release, and what is not; return the log's good words."""
    if judgement.log is None:
        return ()
    if judgement.unlogged:
        for word in judgement.logged:
            ledger.extend(word.verdicts)
        if any(receipt.predicate.outcome != "failed" for receipt in receipts):
            ledger.add("logged.signed", False, f"opened, and {judgement.log} has not signed it")
        else:
            ledger.skip("logged.signed", f"{judgement.log} has not signed these terms")
    good = tuple(word for word in judgement.logged if word.counts)
    _judge_whole(ledger, good, judgement)
    documents, request = situation.documents, judgement.request.digest
    others = (
        *(p.envelope for p in documents.policies if p.digest == situation.trusted.digest),
        judgement.manifest.envelope,
        *(receipt.envelope for receipt in receipts),
        *(burn.envelope for burn in documents.burns if burn.predicate.request == request),
    )
    for envelope in others:
        check_proven(ledger, envelope, situation)
    return good


def _judge_whole(ledger: Ledger, good: Sequence[JudgedLogged], judgement: Judgement) -> None:
    """Judge whether every answer that the log signed for is here: nobody can leave one out.

    An entry is of a text.  A copy of it by another key than its author's is not the answer.
    """
    tally = judgement.tally
    answers: list[JudgedApproval | JudgedDenial | JudgedConsent]
    answers = [*tally.consents, *tally.counted, *tally.passed_over, *tally.denials]
    here = {entry_of(judgement.request.envelope)} | {
        entry_of(answer.statement.envelope) for answer in answers if answer.authentic
    }
    gone = [
        f"{entry.kind} {entry.statement[:16]}…, entry {entry.index} of {word.log}"
        for word in good
        for entry in word.said.entries
        if LogEntry(digest=entry.statement, kind=entry.kind) not in here
    ]
    if good:
        ledger.add(
            "logged.whole",
            not gone,
            "every answer that the log signed for is here",
            otherwise=f"logged and not here: {'; '.join(gone[:3])}",
        )
