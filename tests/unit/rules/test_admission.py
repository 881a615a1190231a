from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem

from custody.crypto.certificates import make_csr
from custody.crypto.signature import public_bytes, sign
from custody.encoding import key_id
from custody.formats.admission import Admission, InvitationKeys, ShareClaim, claim_share
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_statement,
    encode_statement,
    signing_bytes,
)
from custody.formats.policy import SuiteName
from custody.rules.admission import check_admission
from custody.rules.verdicts import Verdict, passed

KEYS = InvitationKeys.generate(environment="production", custodian="carol")
CURVES: dict[SuiteName, ec.EllipticCurve] = {
    "P256": ec.SECP256R1(),
    "P384": ec.SECP384R1(),
    "MLKEM1024_P384": ec.SECP384R1(),
}


class Person:
    """Somebody with a signing key and a share key for every suite."""

    def __init__(self, name: str = "alice") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.csr = make_csr(self.key, name=name)
        self.shares = {suite: ec.generate_private_key(curve) for suite, curve in CURVES.items()}
        self.mlkem = mlkem.MLKEM1024PrivateKey.generate().public_key().public_bytes_raw()

    def claim(self, suite: SuiteName, *, keys: InvitationKeys = KEYS) -> ShareClaim:
        return claim_share(
            self.shares[suite],
            invitation=keys.invitation,
            principal=self.name,
            csr=self.csr,
            suite=suite,
            mlkem=self.mlkem if suite == "MLKEM1024_P384" else None,
        )

    def offer(self, *claims: ShareClaim, csr: bytes | None = None, name: str = "") -> Admission:
        return Admission(
            invitation=KEYS.invitation.digest(),
            principal=name or self.name,
            display="Alice",
            role="officer",
            token_class="software",
            csr=csr or self.csr,
            shares=claims,
        )

    def send(self, admission: Admission) -> Statement[Admission]:
        signature = Signature(
            keyid=key_id(public_bytes(self.key.public_key())),
            sig=sign(self.key, signing_bytes(admission)),
        )
        return decode_statement(Admission, encode_statement(admission, [signature]))


ALICE = Person()
MALLORY = Person("mallory")


def failed(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Return the ids that failed, each once."""
    return sorted({verdict.check for verdict in verdicts if verdict.outcome == "fail"})


@pytest.mark.parametrize("suites", [(), ("P256",), ("P384", "MLKEM1024_P384"), tuple(CURVES)])
def test_honest_admissions_pass(suites: tuple[SuiteName, ...]) -> None:
    """Keys offered by who holds them pass, with any number of share keys."""
    admission = ALICE.offer(*map(ALICE.claim, suites))
    assert passed(check_admission(ALICE.send(admission), keys=KEYS))


def test_a_request_beside_a_stranger_s_share_key_is_refused() -> None:
    """Mallory, who has Alice's request, cannot have her shares sealed to his key."""
    claim = claim_share(
        MALLORY.shares["P256"],
        invitation=KEYS.invitation,
        principal="alice",
        csr=ALICE.csr,
        suite="P256",
    )
    stolen = ALICE.offer(claim)
    assert ["admission.signature"] == failed(check_admission(MALLORY.send(stolen), keys=KEYS))


def test_a_stranger_s_share_key_is_refused() -> None:
    """Nobody offers a share key that he does not hold."""
    claim = ALICE.claim("P256")
    theirs = public_bytes(MALLORY.shares["P256"].public_key())
    forged = ShareClaim(suite="P256", spki=theirs, mlkem=None, proof=claim.proof)
    verdicts = check_admission(ALICE.send(ALICE.offer(forged)), keys=KEYS)
    assert ["admission.possession"] == failed(verdicts)


def test_a_claim_moves_to_no_other_admission() -> None:
    """A claim lifted from Alice's admission proves nothing in Mallory's."""
    verdicts = check_admission(MALLORY.send(MALLORY.offer(ALICE.claim("P256"))), keys=KEYS)
    assert ["admission.possession"] == failed(verdicts)


def test_a_claim_s_post_quantum_half_cannot_be_changed() -> None:
    """Another ML-KEM key beside the same proof is refused, though no proof of it exists."""
    claim = ALICE.claim("MLKEM1024_P384")
    other = ShareClaim(suite=claim.suite, spki=claim.spki, mlkem=MALLORY.mlkem, proof=claim.proof)
    verdicts = check_admission(ALICE.send(ALICE.offer(other)), keys=KEYS)
    assert ["admission.possession"] == failed(verdicts)


def test_another_invitation_is_refused() -> None:
    """An answer to somebody else's invitation is refused, and its proofs do not hold either."""
    other = InvitationKeys.generate(environment="production", custodian="dave")
    admission = ALICE.offer(ALICE.claim("P256", keys=other))
    verdicts = check_admission(ALICE.send(admission), keys=other)
    assert "admission.invitation" in failed(verdicts)


def test_the_request_must_ask_for_the_name() -> None:
    """A request for another name is refused."""
    verdicts = check_admission(ALICE.send(ALICE.offer(name="bob")), keys=KEYS)
    assert ["admission.csr"] == failed(verdicts)


def test_a_bad_request_leaves_nothing_to_verify() -> None:
    """A request that is not one fails, and no signature counts without it."""
    verdicts = check_admission(ALICE.send(ALICE.offer(csr=b"junk")), keys=KEYS)
    assert ["admission.csr"] == failed(verdicts)
    assert not [v for v in verdicts if v.check == "admission.signature" and v.outcome == "pass"]


def test_no_key_has_two_uses() -> None:
    """A signing key that is also offered as a share key is refused."""
    claim = claim_share(
        ALICE.key, invitation=KEYS.invitation, principal="alice", csr=ALICE.csr, suite="P256"
    )
    verdicts = check_admission(ALICE.send(ALICE.offer(claim)), keys=KEYS)
    assert ["admission.keys"] == failed(verdicts)


def test_a_share_key_fits_its_suite() -> None:
    """A P-256 key called a P384 one is refused."""
    claim = ALICE.claim("P256")
    wrong = ShareClaim(suite="P384", spki=claim.spki, mlkem=None, proof=claim.proof)
    verdicts = check_admission(ALICE.send(ALICE.offer(wrong)), keys=KEYS)
    assert ["admission.keys", "admission.possession"] == failed(verdicts)
