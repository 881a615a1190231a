"""Credential challenges: the proof that an AK and an EK are in one TPM.  enrolment.md.

Whoever challenges keeps what tells the right answer, never the answer, and forgets it when the
first answer comes, right or wrong.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from custody.crypto.certificates import spki_of
from custody.crypto.secret import fresh_secret, wipe
from custody.encoding import Digest, KeyId, Moment, Record, encode, sha256
from custody.errors import Incomplete, Refused
from custody.formats.enrolment import Answer, Challenge, EnrolmentRequest, activation_proof
from custody.formats.evidence import ek_public, name
from custody.ops.files import read_record
from custody.ops.home import Home
from custody.ops.keys import TokenRandom
from custody.ops.landing import write_new_file

#: By files a challenge takes days, not seconds; after this long it is asked again.
CHALLENGE_LIFE = timedelta(days=7)

_CHALLENGES = "challenges"


class CredentialMaker(Protocol):
    """TPM2_MakeCredential in software (TPM 2.0 part 1, section 24)."""

    def __call__(self, ek_public: bytes, ak_name: bytes, secret: bytes, /) -> tuple[bytes, bytes]:
        """Return (credential blob, encrypted secret)."""
        ...


class ExpectedAnswer(Record, frozen=True, kw_only=True):
    """What is kept of a challenge: enough to know the answer, not to give it."""

    kind: Literal["custody/expected-answer/v1"]
    request: Digest
    proof_sha256: Digest
    challenged_at: Moment


def pose(
    home: Home,
    request: EnrolmentRequest,
    *,
    challenger: KeyId,
    make_credential: CredentialMaker,
    now: datetime,
    token_random: TokenRandom | None = None,
) -> Challenge:
    """Challenge a host whose request was judged, in the name of the key ``challenger``.

    A new challenge for the same request takes the place of the old one.
    """
    secret = fresh_secret(32, token_random)
    blob, encrypted = make_credential(
        ek_public(spki_of(request.ek_certificate)), name(request.ak_public), bytes(secret)
    )
    proof = activation_proof(bytes(secret), request.digest(), challenger)
    wipe(secret)
    expected = ExpectedAnswer(
        kind="custody/expected-answer/v1",
        request=request.digest(),
        proof_sha256=sha256(bytes.fromhex(proof)).hex(),
        challenged_at=now,
    )
    path = _expected_path(home, request.digest())
    with home.lock():
        path.unlink(missing_ok=True)
        write_new_file(path, encode(expected), mode=0o600)
    return Challenge(
        kind="custody/enrolment-challenge/v1",
        request=request.digest(),
        enroller=challenger,
        credential_blob=blob,
        encrypted_secret=encrypted,
    )


def use_up(
    home: Home,
    request: Digest,
    given: Answer,
    *,
    challenger: KeyId,
    now: datetime,
    life: timedelta = CHALLENGE_LIFE,
) -> None:
    """Compare an answer with the one that was expected, which is forgotten first.

    One attempt per challenge: an answer that is wrong teaches its sender nothing he could use.
    """
    path = _expected_path(home, request)
    with home.lock():
        if not path.exists():
            raise Incomplete(
                "you have no challenge open for this request",
                missing=("an answer to a challenge of yours",),
                hint="custody enroller challenge makes one; each is good for one answer",
            )
        expected = read_record(ExpectedAnswer, path)
        if (given.request, given.enroller) != (request, challenger):
            raise Refused("answers another challenge", check="enrolment.answer")
        path.unlink()
    if not hmac.compare_digest(
        sha256(bytes.fromhex(given.proof)), bytes.fromhex(expected.proof_sha256)
    ):
        raise Refused(
            "the AK and the EK are not shown to be in one TPM",
            check="enrolment.activation",
            hint="the challenge is used up; make a new one",
        )
    if not expected.challenged_at <= now <= expected.challenged_at + life:
        raise Refused("the challenge has expired", check="enrolment.activation")


def forget(home: Home, request: Digest) -> None:
    """Forget a challenge that nobody answered."""
    with home.lock():
        _expected_path(home, request).unlink(missing_ok=True)


def _expected_path(home: Home, request: Digest) -> Path:
    return home.folder(_CHALLENGES) / f"{request}.json"
