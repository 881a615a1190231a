from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.possession import check_possession, possession_statement, prove_possession
from custody.crypto.signature import public_bytes
from custody.errors import Malformed, Refused

CURVES = pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda c: c.name)
STATEMENT = bytes(range(32))
SHARE = ec.generate_private_key(ec.SECP256R1())
INVITATION = ec.generate_private_key(ec.SECP256R1())
SPKI = public_bytes(SHARE.public_key())
PROOF = prove_possession(
    SHARE, invitation_key=public_bytes(INVITATION.public_key()), statement=STATEMENT
)


@CURVES
def test_the_holder_proves_himself(curve: ec.EllipticCurve) -> None:
    """A proof made with the share key holds for that key, invitation and statement."""
    share, invitation = ec.generate_private_key(curve), ec.generate_private_key(curve)
    proof = prove_possession(
        share, invitation_key=public_bytes(invitation.public_key()), statement=STATEMENT
    )
    check_possession(
        proof,
        spki=public_bytes(share.public_key()),
        invitation_key=invitation,
        statement=STATEMENT,
    )
    assert 32 == len(proof)


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_changed_proof_or_statement_is_refused(at: int, change: int) -> None:
    """Changing any byte of the proof or of what it is over is refused."""
    for proof, statement in (
        (spoil(PROOF, at, change), STATEMENT),
        (PROOF, spoil(STATEMENT, at, change)),
    ):
        with pytest.raises(Refused) as refused:
            check_possession(proof, spki=SPKI, invitation_key=INVITATION, statement=statement)
        assert "admission.possession" == refused.value.check


def spoil(data: bytes, at: int, change: int) -> bytes:
    """Change one byte."""
    return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]


def test_a_proof_serves_no_other_key_or_invitation() -> None:
    """A proof for one share key and invitation proves nothing for another of either."""
    other = ec.generate_private_key(ec.SECP256R1())
    for spki, invitation in (
        (public_bytes(other.public_key()), INVITATION),
        (SPKI, other),
    ):
        with pytest.raises(Refused):
            check_possession(PROOF, spki=spki, invitation_key=invitation, statement=STATEMENT)


def test_the_proof_is_not_the_secret() -> None:
    """What leaves the holder is neither the Diffie-Hellman secret nor a part of it."""
    shared = SHARE.exchange(ec.ECDH(), INVITATION.public_key())
    assert PROOF != shared
    assert PROOF[:8] not in shared


def test_curves_must_agree() -> None:
    """A share key on another curve than the invitation key is malformed, not refused by chance."""
    big = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(Malformed, match="different curves"):
        prove_possession(
            big, invitation_key=public_bytes(INVITATION.public_key()), statement=STATEMENT
        )


def test_every_field_is_in_the_statement() -> None:
    """Changing any one field of what is proven changes the statement."""
    base = {"invitation": b"i", "csr": b"c", "principal": "p", "suite": "s", "spki": b"k"}

    def statement(mlkem: bytes | None = None, **fields: str | bytes) -> bytes:
        return possession_statement(mlkem=mlkem, **{**base, **fields})  # type: ignore[arg-type]

    changed = [
        statement(),
        statement(mlkem=b"m"),
        *(statement(**{name: value + value}) for name, value in base.items()),  # type: ignore[operator]
    ]
    assert len(changed) == len(set(changed))
