"""Is an enrolment record the one in force for its EK?  Formats: enrolment.md, retirement.md.

Records are immutable, and so are good for ever by their signatures.  What ends one is a newer
record of its EK, or a retirement: both signed by the enrolment threshold, found among the files at
hand, and remembered, so that leaving them out later brings no host back; and so is what the newest
record said, so that another one of its number is seen when the first is no longer shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from custody.encoding import Digest, format_time
from custody.formats.case import Documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement, statement_digest
from custody.formats.retirement import Retirement
from custody.formats.state import EnrolmentMemory
from custody.rules.situation import Situation
from custody.rules.trust import TrustedPolicy, count_signers
from custody.rules.verdicts import Ledger, Verdict

#: What is said of a record that nobody has ended.
NOT_RETIRED = "not retired"

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)

Vouching = Statement[EnrolmentRecord] | Statement[Retirement]


def record_identity(record: EnrolmentRecord) -> Digest:
    """Return what two records of one number must agree in: everything but when it was found.

    Two threads of enrollers who found the same at different times agree.  It is the statement
    digest that the record would have had at the beginning of 1970.
    """
    return statement_digest(replace(record, enrolled_at=_NO_TIME))


def is_vouched(statement: Vouching, trusted: TrustedPolicy) -> bool:
    """Tell whether a record or a retirement is of this environment and its threshold signed it."""
    if statement.predicate.environment != trusted.genesis:
        return False
    needed = trusted.policy.thresholds.enrolment
    signed = count_signers(statement.envelope, trusted.policy, role="enroller", needed=needed)
    return not signed.missing


def enrolments_seen(
    known: Iterable[EnrolmentMemory],
    documents: Documents,
    *,
    trusted: TrustedPolicy,
    now: datetime,
    only: Digest | None = None,
) -> tuple[EnrolmentMemory, ...]:
    """Return what is ``known`` of every EK, raised by what the documents show; ``only`` for one EK.

    What is dated later than ``now`` says nothing about it, so an auditor's answer stands.
    """
    found = {held.ek_spki: held for held in known if only in (None, held.ek_spki)}
    for record in documents.enrolments:
        said = record.predicate
        held = found.get(said.ek_spki) or _nothing(said.ek_spki)
        # Before the signatures are verified, so that what is known costs nothing.
        if only not in (None, said.ek_spki) or said.epoch <= held.epoch or said.enrolled_at > now:
            continue
        if is_vouched(record, trusted):
            found[said.ek_spki] = replace(held, epoch=said.epoch, record=record_identity(said))
    for retirement in documents.retirements:
        ended = retirement.predicate
        held = found.get(ended.ek_spki) or _nothing(ended.ek_spki)
        if only not in (None, ended.ek_spki) or ended.retired_at > now:
            continue
        if ended.epoch > held.retired and is_vouched(retirement, trusted):
            found[ended.ek_spki] = replace(held, retired=ended.epoch, retired_at=ended.retired_at)
    return tuple(found[ek] for ek in sorted(found))


def enrolment_seen(ek_spki: Digest, situation: Situation) -> EnrolmentMemory:
    """Return what is remembered of an EK's enrolment, or is among the files here."""
    seen = enrolments_seen(
        situation.memory.enrolments,
        situation.documents,
        trusted=situation.trusted,
        now=situation.now,
        only=ek_spki,
    )
    return seen[0] if seen else _nothing(ek_spki)


def _nothing(ek_spki: Digest) -> EnrolmentMemory:
    return EnrolmentMemory(ek_spki=ek_spki, epoch=0, record=None, retired=0, retired_at=None)


def check_in_force(record: Statement[EnrolmentRecord], situation: Situation) -> tuple[Verdict, ...]:
    """Judge whether anything known has ended a record.  Who signed it is for the caller."""
    said = record.predicate
    ledger = Ledger(subject=f"enrolment of {said.host}")
    seen = enrolment_seen(said.ek_spki, situation)
    ledger.add(
        "enrolment.epoch",
        said.epoch >= seen.epoch,
        f"record {said.epoch} of this TPM is the newest known",
        otherwise=f"record {said.epoch} of this TPM was replaced by record {seen.epoch}",
    )
    # Two keys for one EK under one number: the threshold signed twice, and whoever shows the files
    # would choose which of them is believed.
    ledger.add(
        "enrolment.fork",
        not _twin(record, situation)
        and (said.epoch != seen.epoch or seen.record == record_identity(said)),
        "no other record has its number",
        otherwise=f"another record {said.epoch} of this TPM says otherwise",
    )
    later = next((r for r in _retirements(record, situation) if r.retired_at > situation.now), None)
    ledger.add(
        "enrolment.retired",
        said.epoch > seen.retired,
        NOT_RETIRED
        if later is None
        else f"host retired on {format_time(later.retired_at)}, after the moment judged",
        otherwise=_ended(record, seen, situation),
    )
    return ledger.done()


def _ended(record: Statement[EnrolmentRecord], seen: EnrolmentMemory, situation: Situation) -> str:
    here = [r for r in _retirements(record, situation) if r.retired_at == seen.retired_at]
    when = "" if seen.retired_at is None else f" on {format_time(seen.retired_at)}"
    why = f": {here[0].reason}" if here and here[0].reason else ""
    return f"host retired{when}{why}"


def _retirements(
    record: Statement[EnrolmentRecord], situation: Situation
) -> tuple[Retirement, ...]:
    """Return the retirements at hand that end a record, the earliest first."""
    said = record.predicate
    found = [
        retirement.predicate
        for retirement in situation.documents.retirements
        if retirement.predicate.ek_spki == said.ek_spki
        and retirement.predicate.epoch >= said.epoch
        and is_vouched(retirement, situation.trusted)
    ]
    return tuple(sorted(found, key=lambda retirement: retirement.retired_at))


def _twin(record: Statement[EnrolmentRecord], situation: Situation) -> bool:
    said = record.predicate
    return any(
        other.predicate.ek_spki == said.ek_spki
        and other.predicate.epoch == said.epoch
        and record_identity(other.predicate) != record_identity(said)
        and is_vouched(other, situation.trusted)
        for other in situation.documents.enrolments
    )
