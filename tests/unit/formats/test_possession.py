from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody.encoding import Record, decode, encode
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.admission import Admission, InvitationKeys
from custody.formats.envelope import decode_statement
from custody.formats.possession import KeptChallenge, ShareAnswer, ShareChallenge
from custody.rules.admission import CHALLENGE, check_admission
from custody.rules.verdicts import passed
from tests.unit.crypto.vectors import VECTORS

EXAMPLE: Path = VECTORS / "admission"
KEYS = decode(InvitationKeys, (EXAMPLE / "invitation-keys.json").read_bytes())
BOB = decode_statement(Admission, (EXAMPLE / "bob.dsse").read_bytes())
KEPT = decode(KeptChallenge, (EXAMPLE / "challenge-kept.json").read_bytes())
ASKED = (EXAMPLE / "challenge.json").read_bytes()
SAID = (EXAMPLE / "answer.json").read_bytes()
KINDS: dict[str, type[Record]] = {
    "challenge.json": ShareChallenge,
    "answer.json": ShareAnswer,
    "challenge-kept.json": KeptChallenge,
}


def share_key() -> rsa.RSAPrivateKey:
    """Return Bob's share key."""
    key = load_der_private_key((EXAMPLE / "bob-share.der").read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def test_the_example_of_the_second_round_holds() -> None:
    """Challenge and answer are of the admission beside them, and prove its key."""
    asked = decode(ShareChallenge, ASKED)
    (claim,) = BOB.predicate.shares
    answer = asked.answered([(claim.suite, share_key())])
    assert SAID == encode(answer)
    assert KEPT == replace(KEPT, challenge=asked, answer=answer)
    assert passed(check_admission(BOB, keys=KEYS, challenged=KEPT))


def test_the_example_is_what_the_format_document_prints() -> None:
    """Digests and proof in admission.md are those of the example files."""
    text = (Path(__file__).parents[3] / "custody/formats/admission.md").read_text(encoding="utf-8")
    answer = decode(ShareAnswer, SAID)
    for printed in (answer.admission, answer.challenge, *answer.proofs):
        assert printed in text


@pytest.mark.parametrize("answer", [None, "other"])
def test_without_a_right_answer_a_key_is_vouched_for_only(answer: str | None) -> None:
    """No challenge, no answer or a wrong one leaves the one check open, and nothing passes."""
    wrong = replace(decode(ShareAnswer, SAID), proofs=("00" * 32,))
    kept = replace(KEPT, answer=wrong if answer else None)
    for challenged in (None, kept):
        verdicts = check_admission(BOB, keys=KEYS, challenged=challenged)
        assert {CHALLENGE} == {v.check for v in verdicts if v.outcome == "fail"}


def test_a_challenge_to_another_admission_proves_nothing() -> None:
    """What was asked of another admission, or of other keys, does not count for this one."""
    elsewhere = replace(KEPT.challenge, admission="00" * 32)
    slot = replace(KEPT.challenge.slots[0], recipient="00" * 32)
    for challenge in (elsewhere, replace(KEPT.challenge, slots=(slot,))):
        verdicts = check_admission(BOB, keys=KEYS, challenged=replace(KEPT, challenge=challenge))
        assert {CHALLENGE} == {v.check for v in verdicts if v.outcome == "fail"}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_a_changed_byte_is_malformed_or_proves_nothing(name: str, data: st.DataObject) -> None:
    """One byte changed in any of the three files is malformed, or refused as an answer."""
    good = (EXAMPLE / name).read_bytes()
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found: Record = decode(KINDS[name], bytes(changed))
    except Malformed:
        return
    assert bytes(changed) == encode(found)
    if isinstance(found, ShareAnswer):
        with pytest.raises(Refused):
            KEPT.check(found)
    elif isinstance(found, ShareChallenge):
        try:
            answer = found.answered([("RSA2048_OAEP_SHA256", share_key())])
        except CustodyError:
            return
        with pytest.raises(Refused):
            KEPT.check(answer)
    else:
        assert isinstance(found, KeptChallenge)
        assert not passed(check_admission(BOB, keys=KEYS, challenged=found))


@pytest.mark.parametrize("proof", [None, "00" * 32])
def test_a_proof_is_there_exactly_where_a_key_agrees(proof: str | None) -> None:
    """A key that decrypts has none, a key that agrees has one."""
    suite = "RSA2048_OAEP_SHA256" if proof else "P256"
    record = json.loads(encode(BOB.predicate))
    record["shares"][0] |= {"proof": proof, "suite": suite}
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(Malformed, match="proof"):
        decode(Admission, data)


def test_what_is_expected_is_not_shown() -> None:
    """A kept challenge says which it is, not what answers it."""
    assert KEPT.expected[0] not in repr(KEPT)
