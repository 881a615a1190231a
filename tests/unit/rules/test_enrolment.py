"""What ends an enrolment record: a newer one of its EK, or a retirement, now or ever seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from custody.formats.case import Documents, sort_documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement, decode_statement
from custody.formats.retirement import Retirement
from custody.formats.state import EnrolmentMemory, Memory
from custody.rules.enrolment import check_in_force, enrolments_seen, record_identity
from custody.rules.situation import Situation
from custody.rules.trust import trust_chain
from tests.unit.people import NOW, policy, signed, signed_policy

POLICY = signed_policy(policy())
EK, OTHER_EK = "ab" * 32, "cd" * 32
DAY = timedelta(days=1)


def record(
    epoch: int = 1, *signers: str, ek: str = EK, ak: str = "11", at: datetime = NOW - DAY
) -> Statement[EnrolmentRecord]:
    """Write a record, by two enrollers unless others are named."""
    made = EnrolmentRecord(
        environment=POLICY.digest,
        host="gpu-1",
        epoch=epoch,
        ek_spki=ek,
        ek_certificate=b"-",
        ak_public=b"-",
        ak_name="000b" + ak * 32,
        trust_class="software",
        firmware="0" * 16,
        enrolled_at=at,
    )
    return decode_statement(EnrolmentRecord, signed(made, *(signers or ("erik", "esme"))))


def retirement(
    of: Statement[EnrolmentRecord], *signers: str, at: datetime = NOW - timedelta(hours=1)
) -> Statement[Retirement]:
    """Retire a record, by two enrollers unless others are named."""
    said = of.predicate
    made = Retirement(
        environment=said.environment,
        host=said.host,
        ek_spki=said.ek_spki,
        record=of.digest,
        epoch=said.epoch,
        reason="sold",
        retired_at=at,
    )
    return decode_statement(Retirement, signed(made, *(signers or ("erik", "ewan"))))


def standing(
    *here: Statement[EnrolmentRecord] | Statement[Retirement],
    remembered: Sequence[EnrolmentMemory] = (),
    now: datetime = NOW,
) -> Situation:
    """Judge with these files at hand and those remembered."""
    trusted = trust_chain((POLICY,), pin=POLICY.digest, floor=1, now=NOW)
    memory = Memory(
        kind="custody/memory/v1",
        pin=POLICY.digest,
        environment=POLICY.digest,
        policy=POLICY.digest,
        policy_version=1,
        crls=(),
        golden_sets=(),
        hosts=(),
        enrolments=tuple(remembered),
    )
    return Situation(trusted=trusted, documents=heap(*here), memory=memory, now=now)


def heap(*here: Statement[EnrolmentRecord] | Statement[Retirement]) -> Documents:
    """Lay statements in one folder."""
    from custody.encoding import encode

    return sort_documents([(f"{n}.dsse", encode(s.envelope)) for n, s in enumerate(here)])


def failed(held: Statement[EnrolmentRecord], situation: Situation) -> list[str]:
    """Return which checks of a record fail."""
    return [v.check for v in check_in_force(held, situation) if v.outcome == "fail"]


def reason(held: Statement[EnrolmentRecord], situation: Situation, check: str) -> str:
    """Return what a check says."""
    return next(v.reason for v in check_in_force(held, situation) if v.check == check)


def remembered(held: Statement[EnrolmentRecord]) -> EnrolmentMemory:
    """Return what is remembered of an EK whose newest record this is."""
    said = held.predicate
    return EnrolmentMemory(
        ek_spki=said.ek_spki,
        epoch=said.epoch,
        record=record_identity(said),
        retired=0,
        retired_at=None,
    )


def test_a_record_is_in_force_until_something_ends_it() -> None:
    """The only record of an EK, and the newest of several, are good."""
    assert [] == failed(record(), standing(record()))
    assert [] == failed(record(2), standing(record(), record(2)))


def test_a_newer_record_ends_the_older() -> None:
    """A host that was enrolled again cannot go on with its old AK, firmware or name."""
    assert ["enrolment.epoch"] == failed(record(), standing(record(), record(3)))
    assert "record 1 of this TPM was replaced by record 3" == reason(
        record(), standing(record(), record(3)), "enrolment.epoch"
    )


def test_a_newer_record_is_remembered_without_its_file() -> None:
    """Leaving the newer record out of the folder brings the older one back to nobody who knows."""
    held = remembered(record(2))
    assert ["enrolment.epoch"] == failed(record(), standing(record(), remembered=[held]))
    assert [] == failed(record(2), standing(remembered=[held]))


@pytest.mark.parametrize(
    "newer",
    [
        record(2, "erik"),
        record(2, "erik", "ida"),
        record(2, ek=OTHER_EK),
        record(2, at=NOW + timedelta(seconds=1)),
    ],
    ids=["one enroller", "a custodian", "another EK", "the future"],
)
def test_what_ends_no_record(newer: Statement[EnrolmentRecord]) -> None:
    """One enroller, a stranger, another TPM's record or one from the future ends nothing."""
    assert [] == failed(record(), standing(record(), newer))


def test_a_retirement_ends_a_record_for_good() -> None:
    """A retired record is refused, in the words of the retirement; by memory too."""
    ended = standing(record(), retirement(record()))
    assert ["enrolment.retired"] == failed(record(), ended)
    said = reason(record(), ended, "enrolment.retired")
    assert "host retired on 2027-01-05T11:00:00Z: sold" == said
    held = replace(remembered(record()), retired=1, retired_at=NOW - DAY)
    later = standing(record(), remembered=[held])
    assert ["enrolment.retired"] == failed(record(), later)
    assert "host retired on 2027-01-04T12:00:00Z" == reason(record(), later, "enrolment.retired")


def test_retiring_the_newest_brings_no_older_one_back() -> None:
    """A retirement ends every record of its EK up to its own, and none behind it."""
    here = (record(), record(2), retirement(record(2)))
    assert {"enrolment.epoch", "enrolment.retired"} == set(failed(record(), standing(*here)))
    assert ["enrolment.retired"] == failed(record(2), standing(*here))
    assert [] == failed(record(3), standing(*here, record(3)))


@pytest.mark.parametrize(
    "ended",
    [retirement(record(), "erik"), retirement(record(ek=OTHER_EK))],
    ids=["one enroller", "another EK"],
)
def test_what_retires_nobody(ended: Statement[Retirement]) -> None:
    """One enroller cannot stop a host, nor can what was said of another."""
    assert [] == failed(record(), standing(record(), ended))


def test_a_later_retirement_undoes_no_answer_and_is_told() -> None:
    """Judged at a moment before it, the record was good; the judge says what came."""
    after = standing(record(), retirement(record(), at=NOW + DAY))
    assert [] == failed(record(), after)
    said = reason(record(), after, "enrolment.retired")
    assert "host retired on 2027-01-06T12:00:00Z, after the moment judged" == said


def test_two_records_of_one_number_are_both_refused() -> None:
    """Two AKs for one EK under one number are nobody's: who shows the files would choose."""
    here = standing(record(ak="11"), record(ak="22"))
    assert ["enrolment.fork"] == failed(record(ak="11"), here)
    assert ["enrolment.fork"] == failed(record(ak="22"), here)
    draft = standing(record(ak="11"), record(1, "erik", ak="22"))
    assert [] == failed(record(ak="11"), draft)
    twice = standing(record(), record(at=NOW - 2 * DAY))
    assert [] == failed(record(), twice)


def test_a_second_record_of_one_number_is_seen_without_the_first() -> None:
    """Who was shown one record of an epoch takes no other for it, though the first lies nowhere."""
    trusted = standing().trusted
    seen = enrolments_seen((), heap(record(ak="11")), trusted=trusted, now=NOW)
    assert (remembered(record(ak="11")),) == seen
    assert seen == enrolments_seen(seen, heap(record(ak="22")), trusted=trusted, now=NOW)
    other = standing(record(ak="22"), remembered=list(seen))
    assert ["enrolment.fork"] == failed(record(ak="22"), other)
    later = standing(record(ak="11", at=NOW - 2 * DAY), remembered=list(seen))
    assert [] == failed(record(ak="11", at=NOW - 2 * DAY), later)
    assert [] == failed(record(2, ak="22"), standing(record(2, ak="22"), remembered=list(seen)))


def test_memory_only_grows() -> None:
    """What is seen raises what is known of an EK, and never lowers it."""
    known = (
        replace(remembered(record(5)), retired=4, retired_at=NOW - 9 * DAY),
        remembered(record(ek=OTHER_EK)),
    )
    trusted = standing().trusted
    old = heap(record(2), retirement(record(3)), record(7, ek=OTHER_EK))
    seen = enrolments_seen(known, old, trusted=trusted, now=NOW)
    assert (known[0], remembered(record(7, ek=OTHER_EK))) == seen
    new = heap(record(6), retirement(record(6)))
    seen = enrolments_seen(known, new, trusted=trusted, now=NOW)
    assert (6, 6, NOW - timedelta(hours=1)) == (seen[0].epoch, seen[0].retired, seen[0].retired_at)
    assert known[1] == seen[1]
