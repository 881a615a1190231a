"""Enrolling a host again, and retiring it: what enrollers sign, and what they will not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.enrolment import EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement, decode_statement, encode_statement
from custody.formats.retirement import Retirement
from custody.ops.enroll import ask, differences, ek_digest, replaced, vouch
from custody.ops.retire import retire
from custody.rules.enrolment import check_in_force, is_vouched
from custody.rules.situation import Situation
from custody.rules.trust import trust_chain
from custody.rules.verdicts import passed
from tests.unit.machine import EkCertificate, SoftTpm, Vendor
from tests.unit.people import NOW, policy, signed_policy, signer
from tests.unit.rules.test_enrolment import heap
from tests.unit.rules.test_enrolment import standing as bare

POLICY = signed_policy(policy(host=replace(policy().host, vendor_roots=(Vendor().root,))))
OLD = SoftTpm()
NEW = SoftTpm(certificate=OLD.certificate, firmware=OLD.firmware + 1)
FIRST, SECOND = ask(OLD, host="gpu-1"), ask(NEW, host="gpu-1")
EK: Digest = ek_digest(FIRST)
Known = Sequence[Statement[EnrolmentRecord] | Statement[Retirement]]


def standing(known: Known = (), later: timedelta = timedelta(0)) -> Situation:
    """Judge with these statements in the folder."""
    trusted = trust_chain((POLICY,), pin=POLICY.digest, floor=1, now=NOW)
    return Situation(trusted=trusted, documents=heap(*known), memory=bare().memory, now=NOW + later)


def enrolled(
    request: EnrolmentRequest, *names: str, known: Known = (), later: timedelta = timedelta(0)
) -> Statement[EnrolmentRecord]:
    """Have enrollers vouch for a host, one onto the other."""
    record: Statement[EnrolmentRecord] | None = None
    for name in names or ("erik", "esme"):
        record = vouched(request, name, known, onto=record, later=later)
    assert record is not None
    return record


def vouched(
    request: EnrolmentRequest,
    name: str,
    known: Known = (),
    *,
    onto: Statement[EnrolmentRecord] | None = None,
    later: timedelta = timedelta(0),
) -> Statement[EnrolmentRecord]:
    """Have one enroller vouch."""
    data = vouch(
        request,
        signer=signer(name),
        situation=standing(known, later),
        inventory={EK: None},
        trust_class="software",
        onto=onto,
    )
    return decode_statement(EnrolmentRecord, data)


def retired(
    record: Statement[EnrolmentRecord],
    name: str,
    known: Known = (),
    *,
    onto: Statement[Retirement] | None = None,
    later: timedelta = timedelta(hours=1),
) -> Statement[Retirement]:
    """Have one enroller retire a record."""
    data = retire(
        record, reason="sold", signer=signer(name), situation=standing(known, later), onto=onto
    )
    return decode_statement(Retirement, data)


def test_enrolling_again_ends_the_record_before() -> None:
    """A host with a new AK and firmware gets record 2 of its EK, and record 1 is refused."""
    first = enrolled(FIRST)
    second = enrolled(SECOND, known=[first], later=timedelta(days=1))
    assert (1, 2, EK, EK) == (
        first.predicate.epoch,
        second.predicate.epoch,
        first.predicate.ek_spki,
        second.predicate.ek_spki,
    )
    later = standing([first, second], timedelta(days=2))
    assert not passed(check_in_force(first, later))
    assert passed(check_in_force(second, later))


def test_an_enroller_is_told_what_changed() -> None:
    """Before he vouches again he reads which record ends, and what is not as it was."""
    first = enrolled(FIRST)
    found = replaced(SECOND, standing([first]))
    assert found is not None
    assert ("AK", "firmware") == differences(found.predicate, SECOND)
    assert () == differences(found.predicate, FIRST)
    assert (
        replaced(ask(SoftTpm(certificate=EkCertificate(key="b").issue()), host="x"), standing())
        is None
    )


@pytest.mark.parametrize("epoch", [1, 3, 2**31])
def test_a_second_enroller_signs_the_next_number_only(epoch: int) -> None:
    """A number in use would be a second answer; one far ahead would leave none for the future."""
    first = enrolled(FIRST)
    draft = vouched(SECOND, "erik", [first], later=timedelta(days=1))
    changed = replace(draft.predicate, epoch=epoch)
    other = Statement(envelope=draft.envelope, predicate=changed, digest=draft.digest)
    with pytest.raises(Refused) as refused:
        vouched(SECOND, "esme", [first], onto=other, later=timedelta(days=1))
    assert "enrolment.epoch" == refused.value.check


def test_a_third_enroller_may_join_the_record_in_force() -> None:
    """A record that counts already takes one more signature, until it is retired."""
    first = enrolled(FIRST)
    third = vouched(FIRST, "ewan", [first], onto=first)
    assert 3 == len(third.envelope.signatures)
    half = retired(first, "erik", [first])
    ended = retired(first, "esme", [first], onto=half)
    with pytest.raises(Refused) as refused:
        vouched(FIRST, "ewan", [first, ended], onto=first, later=timedelta(hours=2))
    assert "enrolment.epoch" == refused.value.check


def test_a_retired_host_is_enrolled_anew_only() -> None:
    """Behind a retirement comes the next number: the old record stays what it is."""
    first = enrolled(FIRST)
    ended = retired(first, "esme", [first], onto=retired(first, "erik", [first]))
    assert is_vouched(ended, standing().trusted)
    again = enrolled(FIRST, known=[first, ended], later=timedelta(days=1))
    assert 2 == again.predicate.epoch
    later = standing([first, ended, again], timedelta(days=2))
    assert not passed(check_in_force(first, later))
    assert passed(check_in_force(again, later))


def test_one_enroller_retires_nobody() -> None:
    """A retirement needs the threshold that a record needs."""
    first = enrolled(FIRST)
    half = retired(first, "erik", [first])
    assert not is_vouched(half, standing().trusted)
    assert passed(check_in_force(first, standing([first, half], timedelta(days=1))))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"record": "00" * 32}, "retirement.record"),
        ({"epoch": 2}, "retirement.record"),
        ({"host": "gpu-2"}, "retirement.record"),
        ({"retired_at": NOW + timedelta(days=9)}, "retirement.record"),
        ({"retired_at": NOW - timedelta(days=9)}, "retirement.record"),
    ],
)
def test_what_no_second_enroller_signs(change: dict[str, object], check: str) -> None:
    """He signs what he derives from the record himself, at the time that its first signer said."""
    first = enrolled(FIRST)
    half = retired(first, "erik", [first])
    changed = encode_statement(replace(half.predicate, **change), half.envelope.signatures)
    other = decode_statement(Retirement, changed)
    with pytest.raises(Refused) as refused:
        retired(first, "esme", [first], onto=other)
    assert check == refused.value.check


def test_nobody_retires_twice_or_without_the_role() -> None:
    """One enroller's two signatures are one, and a custodian's is none."""
    first = enrolled(FIRST)
    with pytest.raises(Refused, match="already"):
        retired(first, "erik", [first], onto=retired(first, "erik", [first]))
    with pytest.raises(Refused) as refused:
        retired(first, "ida", [first])
    assert "retirement.signer" == refused.value.check


def test_a_draft_is_not_retired() -> None:
    """What counts for nothing needs no end, and whoever asks for one has the wrong file."""
    with pytest.raises(Refused) as refused:
        retired(enrolled(FIRST, "erik"), "esme")
    assert "enrolment.threshold" == refused.value.check
