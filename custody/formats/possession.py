"""How a share key that only decrypts is proven: in a second round.  Format: admission.md.

Such a key signs nothing and agrees on nothing, so it can only show itself by opening something
fresh: the custodian seals a nonce to it, and is told a digest of the nonce.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from custody.crypto.bind import bind
from custody.crypto.keyslots import SlotKey, SuiteName, seal
from custody.crypto.keyslots import open as open_slot
from custody.encoding import Digest, KeyId, Record, encode, key_id, sha256
from custody.errors import Refused
from custody.formats.admission import ShareClaim

NONCE_BYTES = 32


class ChallengeSlot(Record, frozen=True):
    """A nonce sealed to one share key."""

    recipient: KeyId
    sealed: Annotated[bytes, msgspec.Meta(min_length=16, max_length=8192)]


class ShareChallenge(Record, frozen=True):
    """What a custodian seals to the share keys of an admission.  It is not signed."""

    kind: Literal["custody/share-challenge/v1"]
    admission: Digest
    slots: Annotated[tuple[ChallengeSlot, ...], msgspec.Meta(min_length=1, max_length=15)]

    def __post_init__(self) -> None:
        super().__post_init__()
        recipients = [slot.recipient for slot in self.slots]
        if recipients != sorted(set(recipients)):
            raise ValueError("slots: not in order of recipient, each once")

    def digest(self) -> Digest:
        """Return the hex SHA-256 of the challenge's one encoding."""
        return sha256(encode(self)).hex()

    def answered(self, keys: Sequence[tuple[SuiteName, SlotKey]]) -> ShareAnswer:
        """Open every slot with its key, in order.

        What leaves is a digest of the nonce: a slot of a bundle, put here in place of a nonce,
        does not open, because it is bound to its bundle, and nothing of it would be told.
        """
        proofs = []
        for slot, (suite, key) in zip(self.slots, keys, strict=True):
            info = _info(self.admission, slot.recipient)
            nonce = open_slot(suite, key, None, slot.sealed, info=info)
            proofs.append(_proof(self.digest(), slot.recipient, nonce))
        return ShareAnswer(
            kind="custody/share-answer/v1",
            admission=self.admission,
            challenge=self.digest(),
            proofs=tuple(proofs),
        )


class ShareAnswer(Record, frozen=True):
    """What the holder of the keys says to a challenge.  It is not signed: nobody else knows it."""

    kind: Literal["custody/share-answer/v1"]
    admission: Digest
    challenge: Digest
    proofs: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=15)]


class KeptChallenge(Record, frozen=True):
    """A challenge as the custodian keeps it: with what he expects, and what he was answered."""

    kind: Literal["custody/share-challenge-kept/v1"]
    challenge: ShareChallenge
    expected: tuple[Digest, ...]
    answer: ShareAnswer | None

    @classmethod
    def generate(cls, admission: Digest, claims: Sequence[ShareClaim]) -> KeptChallenge:
        """Draw a nonce for each claim and seal it to the key."""
        drawn = []
        for claim in sorted(claims, key=lambda claim: key_id(claim.spki)):
            nonce, recipient = os.urandom(NONCE_BYTES), key_id(claim.spki)
            info = _info(admission, recipient)
            sealed = seal(claim.suite, claim.spki, None, nonce, info=info)
            drawn.append((nonce, ChallengeSlot(recipient=recipient, sealed=sealed)))
        asked = ShareChallenge(
            kind="custody/share-challenge/v1",
            admission=admission,
            slots=tuple(slot for _, slot in drawn),
        )
        return cls(
            kind="custody/share-challenge-kept/v1",
            challenge=asked,
            expected=tuple(_proof(asked.digest(), slot.recipient, nonce) for nonce, slot in drawn),
            answer=None,
        )

    def check(self, answer: ShareAnswer) -> None:
        """Refuse an answer to another challenge, and one by who does not hold every key."""
        told = answer.admission, answer.challenge
        if told != (self.challenge.admission, self.challenge.digest()):
            raise Refused("answers another challenge", check="admission.challenge")
        given, wanted = "".join(answer.proofs), "".join(self.expected)
        if not hmac.compare_digest(given, wanted):
            raise Refused("the sender does not hold the share key", check="admission.challenge")

    def __repr__(self) -> str:
        """Show which challenge, never what is expected."""
        return f"KeptChallenge({self.challenge.digest()[:16]}…)"


def _info(admission: Digest, recipient: KeyId) -> bytes:
    return bind("possession-challenge", bytes.fromhex(admission), bytes.fromhex(recipient))


def _proof(challenge: Digest, recipient: KeyId, nonce: bytes) -> Digest:
    return bind(
        "possession-answer", bytes.fromhex(challenge), bytes.fromhex(recipient), nonce
    ).hex()
