"""How did a request end, by what its host attests?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Literal, TypeVar

from custody.encoding import Digest, encode, format_time
from custody.formats.asking import Asking, Ending
from custody.formats.burn import Burn
from custody.formats.case import Documents
from custody.formats.envelope import Predicate, Statement, of_kind
from custody.formats.forgotten import Forgotten
from custody.formats.request import Request
from custody.rules.approvals import Tally
from custody.rules.asking import check_ending, is_hosts_word
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


def endings_of(documents: Documents, request: Statement[Asking]) -> tuple[Statement[Ending], ...]:
    """Return what a host said of its request's end, as far as it counts, and one copy of each.

    A receipt that it was not opened counts when all of it holds.  One that it was opened counts
    when it is the host's word, by its own key: what else is wrong with it is a failed verdict
    beside it (`judge_receipts`).
    """
    return tuple(_endings(Ledger(), documents, request))


def judge_receipts(
    ledger: Ledger, documents: Documents, request: Statement[Asking]
) -> tuple[Statement[Ending], ...]:
    """Judge the receipts of a request, of each the copy that is best; return those that count.

    Those that tell of an opening come first, and of a key kept before all: a host must not be able
    to take either back by one more receipt.
    """
    good = _endings(ledger, documents, request)
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


def _endings(
    ledger: Ledger, documents: Documents, request: Statement[Asking]
) -> list[Statement[Ending]]:
    judged = [
        (receipt, check_ending(receipt, request))
        for receipt in documents.endings
        if receipt.predicate.request == request.digest
    ]
    if not judged:
        ledger.skip("receipt.signature", "there is no receipt")

    def owned_up(receipt: Statement[Ending]) -> bool:
        # A host could otherwise take an opening back by owning up to a second fault, a key kept
        # against the terms say, and be read as one that never opened.
        return receipt.predicate.outcome != "failed" and is_hosts_word(receipt, request)

    return _best_copies(ledger, judged, counts=owned_up)


def _judge_lateness(ledger: Ledger, receipt: Statement[Ending], request: Statement[Asking]) -> None:
    """Judge whether an opening came before its request's end, by the host's word."""
    said, ends_at = receipt.predicate, request.predicate.ends_at
    if ends_at is None or said.outcome == "failed":
        return
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
    ledger: Ledger,
    judged: Iterable[tuple[Statement[P], tuple[Verdict, ...]]],
    *,
    counts: Callable[[Statement[P]], bool] = lambda _: False,
) -> list[Statement[P]]:
    """Write down, of each statement, the verdicts on its best copy; return the good ones first.

    After them come those that are not good, and that ``counts`` says count all the same.
    """
    copies: dict[Digest, list[tuple[Statement[P], tuple[Verdict, ...]]]] = {}
    for pair in judged:
        copies.setdefault(pair[0].digest, []).append(pair)
    good, faulty = [], []
    for digest in sorted(copies):
        # Whatever order they came in: who collects them and who judges them choose the same.
        statement, verdicts = min(
            copies[digest],
            key=lambda pair: (not passed(pair[1]), not counts(pair[0]), encode(pair[0].envelope)),
        )
        ledger.extend(verdicts)
        if passed(verdicts):
            good.append(statement)
        elif counts(statement):
            faulty.append(statement)
    return good + faulty


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
