from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import spki_of
from custody.encoding import key_id
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.case import Documents
from custody.formats.enrolment import Answer, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import (
    Predicate,
    Statement,
    decode_statement,
    encode_statement,
)
from custody.formats.goldenset import GoldenSet
from custody.formats.state import Identity
from custody.ops.challenges import CHALLENGE_LIFE
from custody.ops.cosign import SIGNING_LIFE
from custody.ops.enroll import (
    answer,
    ask,
    challenge,
    ek_digest,
    record,
    vouch,
)
from custody.ops.golden import approve_state, measure
from custody.ops.home import Home
from custody.ops.inventory import Inventory, read_inventory
from custody.ops.trust import pin
from custody.rules.situation import Situation
from custody.rules.trust import count_signers, trust_chain
from tests.unit.machine import EkCertificate, SoftTpm, Vendor, make_credential
from tests.unit.people import NOW, policy, signed_policy, signer

P = TypeVar("P", bound=Predicate)
POLICY = signed_policy(policy(host=replace(policy().host, vendor_roots=(Vendor().root,))))
TPM = SoftTpm(pcrs={pcr: bytes([pcr]) * 32 for pcr in range(24)})
REQUEST = ask(TPM, host="gpu-1")
INVENTORY: Inventory = {ek_digest(REQUEST): None}


class Enroller:
    """One enroller: a home that trusts the policy, and a key."""

    def __init__(self, name: str, folder: Path) -> None:
        self.signer = signer(name)
        self.home = Home(folder / name)
        self.home.save_identity(
            Identity(
                kind="custody/identity/v1",
                principal=name,
                display=name,
                role="enroller",
                token="pkcs11:",
                signing_spki=self.signer.spki,
                shares=(),
            )
        )
        documents = Documents(policies=(POLICY,))
        self.situation = pin(self.home, documents=documents, digest=POLICY.digest, now=NOW)

    def at(self, moment: timedelta) -> Situation:
        """Judge later, or earlier."""
        trusted, memory = self.situation.trusted, self.situation.memory
        documents = self.situation.documents
        return Situation(trusted=trusted, documents=documents, memory=memory, now=NOW + moment)

    def challenge(self, tpm: SoftTpm = TPM, *, request: EnrolmentRequest = REQUEST) -> Answer:
        """Challenge the host and have it answered."""
        made = challenge(
            self.home,
            request,
            situation=self.situation,
            inventory=INVENTORY,
            make_credential=make_credential,
        )
        return answer(tpm, made.challenge)

    def record(
        self,
        given: Answer,
        *,
        request: EnrolmentRequest = REQUEST,
        onto: Statement[EnrolmentRecord] | None = None,
        later: timedelta = timedelta(0),
        inventory: Inventory = INVENTORY,
    ) -> Statement[EnrolmentRecord]:
        """Vouch for the host."""
        signed = record(
            self.home,
            request,
            given,
            signer=self.signer,
            situation=self.at(later),
            inventory=inventory,
            trust_class="software",
            onto=onto,
        )
        return decode_statement(EnrolmentRecord, signed)


@pytest.fixture
def erik(tmp_path: Path) -> Enroller:
    """One enroller."""
    return Enroller("erik", tmp_path)


@pytest.fixture
def esme(tmp_path: Path) -> Enroller:
    """Another enroller."""
    return Enroller("esme", tmp_path)


def test_two_challenges_make_a_record(erik: Enroller, esme: Enroller) -> None:
    """Both enrollers, each by his own challenge, sign the same bytes."""
    first = erik.record(erik.challenge())
    both = esme.record(esme.challenge(), onto=first, later=timedelta(hours=3))
    assert first.digest == both.digest
    counted = count_signers(both.envelope, POLICY.predicate, role="enroller", needed=2)
    assert ("erik", "esme") == counted.signers
    assert ("gpu-1", set(INVENTORY), POLICY.digest) == (
        both.predicate.host,
        {both.predicate.ek_spki},
        both.predicate.environment,
    )


def test_the_home_does_not_hold_the_answer(erik: Enroller) -> None:
    """Who reads an enroller's home learns no proof that would be accepted."""
    given = erik.challenge()
    (kept,) = erik.home.folder("challenges").iterdir()
    assert given.proof.encode() not in kept.read_bytes()


def test_a_challenge_is_used_up(erik: Enroller) -> None:
    """The right answer is good once."""
    given = erik.challenge()
    erik.record(given)
    with pytest.raises(Incomplete):
        erik.record(given)


def test_a_wrong_proof_is_refused_and_uses_the_challenge_up(erik: Enroller) -> None:
    """A guess costs the challenge, so there is no second guess."""
    given = erik.challenge()
    with pytest.raises(Refused) as refused:
        erik.record(replace(given, proof="0" * 64))
    assert "enrolment.activation" == refused.value.check
    with pytest.raises(Incomplete):
        erik.record(given)


def test_an_answer_to_another_enroller_costs_nothing(erik: Enroller, esme: Enroller) -> None:
    """A file that was sent to the wrong person does not use up the right one's challenge."""
    mine, theirs = erik.challenge(), esme.challenge()
    with pytest.raises(Refused) as refused:
        erik.record(theirs)
    assert "enrolment.answer" == refused.value.check
    assert "gpu-1" == erik.record(mine).predicate.host


def test_an_answer_after_a_week_is_refused(erik: Enroller) -> None:
    """A challenge does not lie open for ever."""
    given = erik.challenge()
    with pytest.raises(Refused, match="expired"):
        erik.record(given, later=CHALLENGE_LIFE + timedelta(seconds=1))


def test_another_tpm_cannot_answer(erik: Enroller) -> None:
    """An AK in software beside an inventoried EK fails the challenge in the TPM."""
    impostor = SoftTpm(certificate=TPM.certificate)
    with pytest.raises(Refused) as refused:
        erik.challenge(impostor)
    assert "tpm.activate" == refused.value.check


def test_an_ek_off_the_inventory_is_not_challenged(erik: Enroller) -> None:
    """The inventory is asked before a challenge and again before the signature."""
    other = ask(SoftTpm(certificate=EkCertificate(key="other").issue()), host="gpu-1")
    with pytest.raises(Refused) as refused:
        erik.challenge(request=other)
    assert "endorsement.inventory" == refused.value.check
    with pytest.raises(Refused):
        erik.record(erik.challenge(), inventory={})


def test_a_record_that_differs_is_not_signed(erik: Enroller, esme: Enroller) -> None:
    """The second enroller signs what he found himself, or nothing."""
    first = erik.record(erik.challenge())
    changed = replace(first.predicate, firmware="0" * 16, host="gpu-9")
    other = Statement(envelope=first.envelope, predicate=changed, digest=first.digest)
    with pytest.raises(Refused, match="differs from what you found yourself: host, firmware"):
        esme.record(esme.challenge(), onto=other)


def test_a_record_from_the_future_is_not_signed(erik: Enroller, esme: Enroller) -> None:
    """A record may be older than its second signature, never younger."""
    first = erik.record(erik.challenge(), later=timedelta(hours=1))
    with pytest.raises(Refused, match="future"):
        esme.record(esme.challenge(), onto=first)


def test_what_no_enroller_has_signed_is_not_signed_on(erik: Enroller, esme: Enroller) -> None:
    """Whoever carries a file could else choose its date: by that, what it replaces has ended."""
    day = timedelta(days=1)

    def dated_back(statement: Statement[P], **changes: object) -> Statement[P]:
        made: P = replace(statement.predicate, **changes)  # type: ignore[type-var]
        return decode_statement(type(made), encode_statement(made, statement.envelope.signatures))

    record = erik.record(erik.challenge())
    record = dated_back(record, enrolled_at=record.predicate.enrolled_at - day)
    with pytest.raises(Refused, match="no enroller of this policy has signed it"):
        esme.record(esme.challenge(), onto=record)
    golden = approve(erik)
    golden = dated_back(golden, issued_at=golden.predicate.issued_at - day)
    with pytest.raises(Refused, match="no enroller of this policy has signed it"):
        approve(esme, onto=golden)


def test_one_enroller_dates_nothing_far_back(erik: Enroller, esme: Enroller) -> None:
    """What he says that he began long ago gets no second signature."""
    first, half, later = erik.record(erik.challenge()), approve(erik), SIGNING_LIFE

    def sign_on(later: timedelta) -> None:
        vouch(
            REQUEST,
            signer=esme.signer,
            situation=esme.at(later),
            inventory=INVENTORY,
            trust_class="software",
            onto=first,
        )

    sign_on(later)
    approve(esme, onto=half, later=later)
    with pytest.raises(Refused, match="too long ago"):
        sign_on(later + timedelta(seconds=1))
    with pytest.raises(Refused, match="too long ago"):
        approve(esme, onto=half, later=later + timedelta(seconds=1))


def test_nobody_signs_twice(erik: Enroller) -> None:
    """One enroller's two challenges are one signature."""
    first = erik.record(erik.challenge())
    with pytest.raises(Refused, match="already"):
        erik.record(erik.challenge(), onto=first)


def test_only_enrollers_vouch(tmp_path: Path) -> None:
    """A custodian's key does not make a record, though the policy knows it."""
    ida = Enroller("ida", tmp_path)
    with pytest.raises(Refused) as refused:
        ida.record(ida.challenge())
    assert "enrolment.signer" == refused.value.check


@pytest.mark.parametrize("name", ["GPU 1", "", "a/b", "x" * 64])
def test_a_host_has_a_name(name: str) -> None:
    """What is no name is refused before the TPM is asked to sign it."""
    with pytest.raises(Malformed):
        ask(TPM, host=name)


def test_an_inventory_is_digests_with_comments(tmp_path: Path) -> None:
    """Lines are digests, in either case, with a comment behind; others are named."""
    path = tmp_path / "inventory.txt"
    (digest,) = INVENTORY
    path.write_text(f"# rack 3\n\n  {digest.upper()}  # gpu-1\n")
    assert INVENTORY == read_inventory(path)
    path.write_text(f"{digest}\tgpu-1\n{'0' * 64}\n")
    assert {digest: "gpu-1", "0" * 64: None} == read_inventory(path)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("0" * 63, "is no digest"),
        ("gpu-1 " + "0" * 64, "is no digest"),
        ("0" * 64 + " GPU_1!", "is no name"),
        ("0" * 64 + " gpu-1 gpu-2", "is no name"),
        ("0" * 64 + " gpu-1\n" + "0" * 64, "listed twice"),
        ("0" * 64 + " gpu-1\n" + "0" * 64 + " gpu-2", "listed twice"),
        ("\u00e9", "lines of hex"),
    ],
)
def test_an_inventory_that_is_none_is_refused(tmp_path: Path, lines: str, reason: str) -> None:
    """A line that is not plainly a digest and a name is an error, never a line passed over."""
    path = tmp_path / "inventory.txt"
    path.write_text(f"{lines}\n", encoding="utf-8")
    with pytest.raises(Malformed, match=reason):
        read_inventory(path)


def test_a_host_goes_by_the_inventorys_name(erik: Enroller) -> None:
    """An approved TPM cannot enrol as another machine, where the inventory says whose it is."""
    (digest,) = INVENTORY
    with pytest.raises(Refused) as refused:
        erik.record(erik.challenge(), inventory={digest: "gpu-2"})
    assert "enrolment.name" == refused.value.check
    assert "gpu-1" == erik.record(erik.challenge(), inventory={digest: "gpu-1"}).predicate.host


def test_an_inventory_may_be_certificates(tmp_path: Path) -> None:
    """A folder of EK certificates is an inventory of their keys."""
    (tmp_path / "gpu-1.cer").write_bytes(TPM.certificate)
    assert INVENTORY == read_inventory(tmp_path)


def approve(
    who: Enroller,
    tpm: SoftTpm = TPM,
    *,
    pcrs: tuple[int, ...] = tuple(range(8)),
    onto: Statement[GoldenSet] | None = None,
    later: timedelta = timedelta(0),
) -> Statement[GoldenSet]:
    """Vouch for a boot state."""
    signed = approve_state(
        measure(tpm, pcrs=pcrs, now=NOW),
        signer=who.signer,
        situation=who.at(later),
        name="lab-6.1",
        notes="",
        epoch=1,
        onto=onto,
    )
    return decode_statement(GoldenSet, signed)


def test_two_enrollers_make_a_golden_set(erik: Enroller, esme: Enroller) -> None:
    """The set holds exactly the policy's registers, and both signatures are over one statement."""
    first = approve(erik)
    both = approve(esme, onto=first, later=timedelta(hours=1))
    assert ((0, 2, 4, 7), first.digest) == (both.predicate.selection(), both.digest)
    counted = count_signers(both.envelope, POLICY.predicate, role="enroller", needed=2)
    assert ("erik", "esme") == counted.signers


def test_another_boot_state_is_not_signed(erik: Enroller, esme: Enroller) -> None:
    """The second enroller compares with a machine of his own."""
    other = SoftTpm(pcrs={**TPM.pcrs, 4: bytes(32)})
    with pytest.raises(Refused, match="differs from what you measured: pcrs"):
        approve(esme, other, onto=approve(erik))


def test_a_measurement_covers_the_policy(erik: Enroller) -> None:
    """A register that was not read cannot be vouched for."""
    with pytest.raises(Refused, match="PCR 4, 7"):
        approve(erik, pcrs=(0, 1, 2))


def test_only_enrollers_approve_boot_states(tmp_path: Path) -> None:
    """An officer's key makes no golden set."""
    with pytest.raises(Refused) as refused:
        approve(Enroller("sec1", tmp_path))
    assert "golden.signer" == refused.value.check


def test_a_vendors_newest_list_is_remembered(erik: Enroller) -> None:
    """After a challenge the enroller refuses the vendor's list of before."""
    root = key_id(spki_of(Vendor().root))
    host = replace(POLICY.predicate.host, vendor_crls=(root,))
    demanding = signed_policy(replace(POLICY.predicate, host=host))
    trusted = trust_chain((demanding,), pin=demanding.digest, floor=1, now=NOW)

    def ask_with(*crls: bytes) -> None:
        documents = Documents(crls=(Vendor().crl(by="root"), *crls))
        memory = erik.home.memory()
        situation = Situation(trusted=trusted, documents=documents, memory=memory, now=NOW)
        challenge(
            erik.home,
            REQUEST,
            situation=situation,
            inventory=INVENTORY,
            make_credential=make_credential,
        )

    ask_with(Vendor().crl(5))
    ask_with(Vendor().crl(6))
    for crls, check in (((Vendor().crl(5),), "crl.number"), ((), "crl.found")):
        with pytest.raises(Refused) as refused:
            ask_with(*crls)
        assert check == refused.value.check
