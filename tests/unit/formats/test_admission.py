from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.encoding import decode, encode
from custody.errors import CustodyError, Malformed
from custody.formats.admission import Admission, Invitation, InvitationKeys, ShareClaim
from custody.formats.envelope import decode_statement
from custody.rules.admission import check_admission
from custody.rules.verdicts import passed
from tests.unit.crypto.vectors import VECTORS

EXAMPLE: Path = VECTORS / "admission"
KEYS = decode(InvitationKeys, (EXAMPLE / "invitation-keys.json").read_bytes())
ADMISSION = (EXAMPLE / "alice.dsse").read_bytes()
INVITATION = (EXAMPLE / "invitation.json").read_bytes()


def test_the_example_of_the_format_holds() -> None:
    """The worked example is an answer to its invitation, and every check passes."""
    assert INVITATION == encode(KEYS.invitation)
    assert passed(check_admission(decode_statement(Admission, ADMISSION), keys=KEYS))


def test_the_example_is_what_the_format_document_prints() -> None:
    """Digest and proof in admission.md are those of the example files."""
    text = (Path(__file__).parents[3] / "custody/formats/admission.md").read_text(encoding="utf-8")
    admission = decode_statement(Admission, ADMISSION).predicate
    assert KEYS.invitation.digest() in text
    assert admission.statement_of(admission.shares[0]).hex() in text
    proof = admission.shares[0].proof
    assert proof is not None
    assert proof in text


@given(st.data())
def test_a_changed_byte_of_an_admission_never_passes(data: st.DataObject) -> None:
    """Changing one byte of an admission is refused, or leaves its statement as it was."""
    at = data.draw(st.integers(0, len(ADMISSION) - 1))
    changed = bytearray(ADMISSION)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        statement = decode_statement(Admission, bytes(changed))
    except CustodyError:
        return
    good = decode_statement(Admission, ADMISSION)
    assert statement.digest == good.digest or not passed(check_admission(statement, keys=KEYS))


@given(st.data())
def test_a_changed_byte_of_an_invitation_is_another_invitation(data: st.DataObject) -> None:
    """A changed invitation is malformed or has another digest, which no answer of ours names."""
    at = data.draw(st.integers(0, len(INVITATION) - 1))
    changed = bytearray(INVITATION)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        invitation = decode(Invitation, bytes(changed))
    except Malformed:
        return
    assert invitation.digest() != KEYS.invitation.digest()


@pytest.mark.parametrize("display", ["", "two\nlines", "\x1b[2Jclean", "alice\u202egpj", "x" * 201])
def test_a_name_for_people_is_one_printable_line(display: str) -> None:
    """Line breaks, escapes and direction marks are malformed: a name must not rewrite a screen."""
    predicate = encode(decode_statement(Admission, ADMISSION).predicate)
    with pytest.raises(Malformed, match=r"display|length"):
        decode(Admission, changed_fields(predicate, display=display))


def changed_fields(record: bytes, **fields: object) -> bytes:
    """Write a record with other field values, in canonical form."""
    changed = {**json.loads(record), **fields}
    return json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(("suite", "mlkem"), [("P384", True), ("MLKEM1024_P384", False)])
def test_only_hybrids_have_a_second_half(suite: str, mlkem: bool) -> None:  # noqa: FBT001
    """An ML-KEM key is there exactly when the suite has one."""
    claim = encode(decode_statement(Admission, ADMISSION).predicate.shares[0])
    half = base64.b64encode(bytes(1568)).decode() if mlkem else None
    with pytest.raises(Malformed, match="exactly when"):
        decode(ShareClaim, changed_fields(claim, suite=suite, mlkem=half))


def test_invitation_keys_show_nothing() -> None:
    """The private halves are in no repr."""
    assert KEYS.p256.hex() not in repr(KEYS)
    assert f"InvitationKeys({KEYS.invitation.digest()[:16]}…)" == repr(KEYS)


def test_invitation_keys_of_another_invitation_are_malformed() -> None:
    """Private halves that do not fit the public ones are found before they are used."""
    other = InvitationKeys.generate(environment="production", custodian="carol")
    mixed = InvitationKeys(
        kind=KEYS.kind, invitation=KEYS.invitation, p256=other.p256, p384=other.p384
    )
    with pytest.raises(Malformed, match="not the invitation's"):
        mixed.private_key("P384")
