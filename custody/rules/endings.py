"""How did a request end, by what its host attests?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, TypeVar

from custody.encoding import Digest, format_time
from custody.formats.asking import Asking, Ending
from custody.formats.burn import Burn
from custody.formats.case import Documents
from custody.formats.envelope import Predicate, Statement, of_kind
from custody.formats.forgotten import Forgotten
from custody.formats.request import Request
from custody.rules.approvals import Tally
from custody.rules.asking import check_ending
from custody.rules.burn import check_burn
from custody.rules.forgotten import check_forgotten
from custody.rules.verdicts import Ledger, Verdict, passed

Outcome = Literal[
    "opened-and-burned",
    "opened-not-burned",
    "opened-burn-not-provable",
    "retained",
    "never-opened",
    "failed",
    "approved",
    "open",
    "refused",
]
#: What a host says against itself outweighs what it says for itself.
_WORST_FIRST = ("retained", "opened", "failed")

P = TypeVar("P", bound=Predicate)


def judge_receipts(
    ledger: Ledger, documents: Documents, request: Statement[Asking]
) -> tuple[Statement[Ending], ...]:
    """Judge the receipts of a request, of each the copy that is best; return the good ones.

    Those that tell of an opening come first, and of a key kept before all: a host must not be able
    to take either back by one more receipt.
    """
    judged = [
        (receipt, check_ending(receipt, request))
        for receipt in documents.endings
        if receipt.predicate.request == request.digest
    ]
    if not judged:
        ledger.skip("receipt.signature", "there is no receipt")
    good = _best_copies(ledger, judged)
    for receipt in good:
        _judge_lateness(ledger, receipt, request)
    openings = [receipt for receipt in good if receipt.predicate.outcome != "failed"]
    # Of a TPM's key the burn tells.  Here the host's word is all there is, and it was given twice.
    if openings and not request.predicate.BURNS:
        ledger.add(
            "receipt.once",
            len(openings) == 1,
            "the host tells of one opening",
            otherwise=f"the host tells of {len(openings)} openings, by as many receipts",
        )
    return tuple(sorted(good, key=lambda receipt: _WORST_FIRST.index(receipt.predicate.outcome)))


def _judge_lateness(ledger: Ledger, receipt: Statement[Ending], request: Statement[Asking]) -> None:
    """Judge whether an opening came before its request's end, by the host's word."""
    said, ends_at = receipt.predicate, request.predicate.ends_at
    if ends_at is None or said.outcome == "failed":
        return
    # Not among what makes a receipt good: a host that owns up to an opening would take it back by
    # owning up to a second fault.
    at, until = format_time(said.finished_at), format_time(ends_at)
    ledger.add(
        "receipt.deadline",
        said.finished_at < ends_at,
        f"opened at {at}, before the deadline of its terms, {until}, by the host's word",
        otherwise=f"opened at {at}, after the deadline of its terms, {until}",
    )


def judge_burns(
    ledger: Ledger,
    documents: Documents,
    request: Statement[Asking],
    receipts: Collection[Digest],
) -> tuple[Statement[Burn], ...]:
    """Judge the burn receipts of a request as its receipts are; return the good ones."""
    by_tpm = of_kind(Request, request)
    if by_tpm is None:
        ledger.skip("burn.signature", "burn not provable: the host's key is in an HSM")
        return ()
    judged = [
        (burn, check_burn(burn, by_tpm))
        for burn in documents.burns
        if burn.predicate.request == request.digest
    ]
    if not judged:
        ledger.skip("burn.signature", "there is no burn receipt: the key may live")
    good = _best_copies(ledger, judged)
    for burn in good:
        # A host with two receipts, one of an opening, could otherwise show the other one only.
        ledger.add(
            "burn.receipt",
            burn.predicate.receipt in receipts,
            "the receipt it ends is here",
            otherwise="it names a receipt that is not here, or is not good",
        )
    return tuple(good)


def judge_forgotten(
    ledger: Ledger, documents: Documents, request: Statement[Asking]
) -> tuple[Statement[Forgotten], ...]:
    """Judge a host's word that it forgot a kept key; return the good ones."""
    by_tpm = of_kind(Request, request)
    judged = [
        (said, check_forgotten(said, by_tpm))
        for said in documents.forgotten
        if by_tpm is not None and said.predicate.request == request.digest
    ]
    return tuple(_best_copies(ledger, judged))


def _best_copies(
    ledger: Ledger, judged: Iterable[tuple[Statement[P], tuple[Verdict, ...]]]
) -> list[Statement[P]]:
    """Write down, of each statement, the verdicts on its best copy; return the good ones."""
    copies: dict[Digest, list[tuple[Statement[P], tuple[Verdict, ...]]]] = {}
    for pair in judged:
        copies.setdefault(pair[0].digest, []).append(pair)
    good = []
    for digest in sorted(copies):
        best = next((pair for pair in copies[digest] if passed(pair[1])), copies[digest][0])
        ledger.extend(best[1])
        if passed(best[1]):
            good.append(best[0])
    return good


def outcome_of(
    request: Statement[Asking],
    receipt: Statement[Ending] | None,
    burn: Statement[Burn] | None,
    tally: Tally | None,
    ledger: Ledger,
) -> Outcome:
    """Name what came of a request: by its receipt, or how far it got without one."""
    said = receipt.predicate.outcome if receipt is not None else None
    # What is sealed for restarts outlives the request's key: no burn ends it.  Where it may have
    # been, the host's word that it was not is not enough.
    if said == "retained" or (said == "opened" and request.predicate.terms.keeps_key):
        return "retained"
    if said == "opened" and not request.predicate.BURNS:
        return "opened-burn-not-provable"
    if said == "opened":
        return "opened-and-burned" if burn is not None else "opened-not-burned"
    if said == "failed":
        return "never-opened" if burn is not None else "failed"
    if ledger.failed:
        return "refused"
    return "approved" if tally is not None and tally.complete else "open"
