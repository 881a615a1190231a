"""An enroller's desk: what it challenges, queues, signs, forgets and survives."""

from __future__ import annotations

from dataclasses import replace as change
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.encoding import decode, encode
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.case import Documents
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement, decode_statement
from custody.ops.desk import (
    ANSWER_LIFE,
    MAX_OPEN_OF_ONE_EK,
    RECORD_LIFE,
    WAITING_LIFE,
    Desk,
    DeskFiles,
    DeskRules,
    Standing,
    Unattended,
)
from custody.ops.enroll import answer, ask, ek_digest, namesakes
from custody.ops.inventory import Inventory
from custody.rules.trust import count_signers
from tests.unit.machine import EkCertificate, SoftTpm, Vendor, make_credential
from tests.unit.ops.test_enroll import INVENTORY, POLICY, REQUEST, TPM, Enroller
from tests.unit.people import NOW

NAMED: Inventory = {ek_digest(REQUEST): "gpu-1"}
SECOND = timedelta(seconds=1)


class Served:
    """An enroller with a desk; its clock and its inventory are the test's."""

    def __init__(
        self, who: Enroller, *, inventory: Inventory = INVENTORY, unattended: bool = False
    ) -> None:
        self.who = who
        self.inventory = inventory
        self.now: datetime = NOW
        self.told: list[str] = []
        self.unattended = unattended
        self.documents: Documents | None = None
        self.desk = self.open()

    def open(self) -> Desk:
        """Open the desk, as a server that starts does."""
        leave = Unattended(signer=self.who.signer, trust_class="software")
        rules = DeskRules(
            challenger=self.who.signer.key_id,
            standing=self.standing,
            make_credential=make_credential,
            unattended=leave if self.unattended else None,
            tell=self.told.append,
        )
        return Desk(self.who.home, rules)

    def standing(self) -> Standing:
        """Say what the enroller goes by now."""
        situation = self.who.at(self.now - NOW)
        if self.documents is not None:
            situation = change(situation, documents=self.documents)
        return Standing(situation=situation, inventory=self.inventory)

    def challenge(self, request: EnrolmentRequest = REQUEST) -> Challenge:
        """Show a host."""
        return decode(Challenge, self.desk.receive(encode(request)))

    def answer(self, given: Answer) -> bytes | None:
        """Answer."""
        return self.desk.answer(given.request, encode(given))

    def ceremony(self, request: EnrolmentRequest = REQUEST, tpm: SoftTpm = TPM) -> bytes | None:
        """Go through all of it."""
        return self.answer(answer(tpm, self.challenge(request)))

    def sign(self) -> bytes:
        """Have the enroller sign the one who waits."""
        files = DeskFiles(self.who.home)
        (asked,) = files.waiting()
        return files.sign(
            asked.request.digest(),
            signer=self.who.signer,
            standing=self.standing(),
            trust_class="software",
        )


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """A desk whose enroller signs himself."""
    return Served(Enroller("erik", tmp_path))


@pytest.fixture
def unattended(tmp_path: Path) -> Served:
    """A desk that signs for whom the inventory lists by name."""
    return Served(Enroller("esme", tmp_path), inventory=NAMED, unattended=True)


def test_a_right_answer_waits_for_its_enroller(served: Served) -> None:
    """Nothing is signed before he signs; then the host fetches it."""
    assert served.ceremony() is None
    assert served.desk.fetch(REQUEST.digest()) is None
    signed = served.sign()
    assert signed == served.desk.fetch(REQUEST.digest())
    assert "gpu-1" == decode_statement(EnrolmentRecord, signed).predicate.host
    assert () == DeskFiles(served.who.home).waiting()


def test_unattended_signs_at_once(unattended: Served) -> None:
    """For a TPM that the inventory lists with this host's name."""
    signed = unattended.ceremony()
    assert signed is not None
    assert signed == unattended.desk.fetch(REQUEST.digest())
    assert ["gpu-1: challenged", "gpu-1: signed"] == unattended.told


@pytest.mark.parametrize(
    ("inventory", "check"),
    [
        ({}, "endorsement.inventory"),
        (INVENTORY, "enrolment.name"),
        ({ek_digest(REQUEST): "gpu-2"}, "enrolment.name"),
    ],
    ids=["not listed", "not named", "named otherwise"],
)
def test_nothing_is_signed_for_whom_the_inventory_does_not_name(
    unattended: Served, inventory: Inventory, check: str
) -> None:
    """Neither before the challenge nor, if the inventory changes in between, after it."""
    given = answer(TPM, unattended.challenge())
    unattended.inventory = inventory
    with pytest.raises(Refused) as refused:
        unattended.answer(given)
    assert check == refused.value.check
    with pytest.raises(Refused):
        unattended.challenge()
    assert [] == list(unattended.desk.files.home.folder("records").iterdir())


def test_unattended_enrols_nobody_again(served: Served, unattended: Served) -> None:
    """A record that is in force, and a retirement, are ended by a person or not at all."""
    whole = _record(served, unattended)
    documents = Documents(policies=(POLICY,), enrolments=(whole,))
    unattended.documents = documents
    with pytest.raises(Refused) as refused:
        unattended.challenge()
    assert "enrolment.again" == refused.value.check
    unattended.unattended = False
    unattended.desk = unattended.open()
    assert unattended.ceremony() is None


def test_unattended_enrols_no_other_ak_before_the_first_record_is_known(
    unattended: Served,
) -> None:
    """A host that keeps its record to itself is not given a second one, for another AK."""
    assert unattended.ceremony() is not None
    assert unattended.ceremony() is not None
    unattended.now = NOW + RECORD_LIFE + SECOND
    for other in (
        SoftTpm(certificate=TPM.certificate),
        change(TPM, firmware=TPM.firmware + 1),
    ):
        with pytest.raises(Refused) as refused:
            unattended.challenge(ask(other, host="gpu-1"))
        assert "enrolment.again" == refused.value.check


def test_unattended_gives_nobody_a_name_that_another_tpm_has(
    served: Served, unattended: Served
) -> None:
    """Officers know a host by its name; which of two machines bears it is for a person to say."""
    whole = _record(served, unattended)
    other = SoftTpm(certificate=EkCertificate(key="other").issue())
    request = ask(other, host="gpu-1")
    unattended.inventory = {**NAMED, ek_digest(request): "gpu-1"}
    unattended.documents = Documents(policies=(POLICY,), enrolments=(whole,))
    assert (whole,) == namesakes(request, unattended.standing().situation)
    assert () == namesakes(REQUEST, unattended.standing().situation)
    assert () == namesakes(ask(other, host="gpu-2"), unattended.standing().situation)
    with pytest.raises(Refused) as refused:
        unattended.challenge(request)
    assert "enrolment.name" == refused.value.check


def test_a_list_that_a_desk_has_seen_is_not_taken_back(served: Served) -> None:
    """Who carries the enroller's files cannot have him forget what a vendor revoked since."""
    lists = Documents(crls=(Vendor().crl(7), Vendor().crl(3, by="root")))
    served.documents = lists
    served.challenge()
    memory = served.who.home.memory()
    assert [3, 7] == sorted(each.number for each in memory.crls)


def test_two_desks_make_a_record(served: Served, unattended: Served) -> None:
    """The second enroller's signature goes onto the first one's record."""
    both = _record(served, unattended)
    counted = count_signers(both.envelope, POLICY.predicate, role="enroller", needed=2)
    assert ("erik", "esme") == counted.signers


def _record(served: Served, unattended: Served) -> Statement[EnrolmentRecord]:
    served.ceremony()
    half = served.sign()
    given = answer(TPM, unattended.challenge())
    unattended.desk.attach(REQUEST.digest(), half)
    whole = unattended.answer(given)
    assert whole is not None
    return decode_statement(EnrolmentRecord, whole)


def test_another_hosts_record_is_not_signed_onto(served: Served, unattended: Served) -> None:
    """What is attached must be of this AK, and what the enroller would have written."""
    served.ceremony()
    half = served.sign()
    other = SoftTpm(certificate=EkCertificate(key="other").issue())
    request = ask(other, host="gpu-1")
    unattended.inventory = {ek_digest(request): "gpu-1"}
    unattended.challenge(request)
    with pytest.raises(Refused, match="another AK"):
        unattended.desk.attach(request.digest(), half)
    with pytest.raises(Malformed):
        unattended.desk.attach(request.digest(), b"{}")


def test_a_refused_signature_leaves_nobody_waiting(served: Served, unattended: Served) -> None:
    """An onto that differs ends the ceremony; the host asks again and is not told to wait."""
    served.ceremony()
    statement = decode_statement(EnrolmentRecord, served.sign())
    changed = replace(statement.predicate, firmware="0" * 16)
    given = answer(TPM, unattended.challenge())
    unattended.desk.attach(REQUEST.digest(), served.who.signer.statement(changed))
    with pytest.raises(Refused, match="differs from what you found yourself"):
        unattended.answer(given)
    with pytest.raises(Incomplete):
        unattended.desk.fetch(REQUEST.digest())


def test_a_challenge_is_used_up_by_its_first_answer(served: Served) -> None:
    """Right or wrong, there is no second."""
    given = answer(TPM, served.challenge())
    with pytest.raises(Refused) as refused:
        served.answer(replace(given, proof="0" * 64))
    assert "enrolment.activation" == refused.value.check
    with pytest.raises(Incomplete):
        served.answer(given)
    assert () == DeskFiles(served.who.home).waiting()


def test_a_challenge_ends(served: Served) -> None:
    """An answer that comes late is refused, and the sweep forgets what nobody answered."""
    given = answer(TPM, served.challenge())
    served.now = NOW + ANSWER_LIFE + SECOND
    with pytest.raises(Refused, match="expired"):
        served.answer(given)
    served.now = NOW
    given = answer(TPM, served.challenge())
    served.desk.files.sweep(NOW + ANSWER_LIFE + SECOND)
    served.now = NOW + SECOND
    with pytest.raises(Incomplete):
        served.answer(given)
    assert [] == list(served.desk.files.home.folder("challenges").iterdir())


def test_an_answer_waits_for_days_and_not_for_ever(served: Served) -> None:
    """An enroller who comes back after a week vouches for nothing he was shown before."""
    served.ceremony()
    served.now = NOW + WAITING_LIFE + SECOND
    with pytest.raises(Refused, match="too old"):
        served.sign()
    served.desk.files.sweep(served.now)
    assert () == DeskFiles(served.who.home).waiting()


def test_a_host_taken_off_the_inventory_while_it_waits_is_not_signed(served: Served) -> None:
    """He signs by the inventory of now."""
    served.ceremony()
    served.inventory = {}
    with pytest.raises(Refused) as refused:
        served.sign()
    assert "endorsement.inventory" == refused.value.check


def test_who_is_turned_away_may_ask_again(served: Served) -> None:
    """And has nothing to fetch until then."""
    served.ceremony()
    DeskFiles(served.who.home).turn_away(REQUEST.digest())
    with pytest.raises(Incomplete):
        served.desk.fetch(REQUEST.digest())
    assert served.ceremony() is None


def test_a_stranger_with_the_ek_certificate_fills_no_desk(served: Served) -> None:
    """Challenges of one EK are few, the host's own is not taken away, and it goes on later."""
    given = answer(TPM, served.challenge())
    for _ in range(MAX_OPEN_OF_ONE_EK - 1):
        served.challenge(ask(SoftTpm(certificate=TPM.certificate), host="gpu-1"))
    with pytest.raises(Incomplete, match="too many"):
        served.challenge(ask(SoftTpm(certificate=TPM.certificate), host="gpu-1"))
    assert served.answer(given) is None
    served.now = NOW + ANSWER_LIFE + SECOND
    assert served.challenge(ask(SoftTpm(certificate=TPM.certificate), host="gpu-1"))


def test_a_desk_that_was_stopped_goes_on(served: Served) -> None:
    """After the challenge, after the answer, after the signature: everything is in the home."""
    given = answer(TPM, served.challenge())
    served.desk = served.open()
    assert served.answer(given) is None
    served.desk = served.open()
    signed = served.sign()
    served.desk = served.open()
    assert signed == served.desk.fetch(REQUEST.digest())


def test_a_record_is_kept_for_its_host_for_a_while(served: Served) -> None:
    """Then it is forgotten here; everybody has it by then."""
    served.ceremony()
    served.sign()
    served.desk.files.sweep(NOW + RECORD_LIFE)
    assert served.desk.fetch(REQUEST.digest()) is not None
    served.desk.files.sweep(NOW + RECORD_LIFE + SECOND)
    with pytest.raises(Incomplete):
        served.desk.fetch(REQUEST.digest())


def test_the_home_does_not_hold_the_answer(served: Served) -> None:
    """Who reads the desk's files learns no proof that would be accepted."""
    given = answer(TPM, served.challenge())
    held = [path for path in served.desk.files.home.path.rglob("*") if path.is_file()]
    assert held
    assert not any(given.proof.encode() in path.read_bytes() for path in held)


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[" * 10_000, b"\xff" * 100])
def test_what_is_no_document_is_malformed(served: Served, body: bytes) -> None:
    """Whatever comes first, middle or last."""
    served.challenge()
    for take in (
        served.desk.receive,
        lambda data: served.desk.attach(REQUEST.digest(), data),
        lambda data: served.desk.answer(REQUEST.digest(), data),
    ):
        with pytest.raises(Malformed):
            take(body)
