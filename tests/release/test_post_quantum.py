"""Shares that a quantum computer does not open at rest, nor on their way to a host."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem

from custody.formats.envelope import Statement
from custody.formats.policy import Principal, ShareKey, SigningKey
from custody.formats.request import Request
from custody.ops.approve import approve_requests
from custody.ops.bundle import Bundle
from custody.ops.keys import ShareOpener
from tests.release.cast import Cast, PersonKeys, as_approval, spki
from tests.release.expect import QUORUM
from tests.release.test_release import same_tree

HYBRID: Final = "MLKEM1024_P384"
#: An ML-KEM-1024 ciphertext (FIPS 203 table 3), which every hybrid slot begins with.
CIPHERTEXT_BYTES = 1568


@dataclass
class Hybrid(PersonKeys):
    """An officer whose share key is in two halves."""

    seed: bytes = field(default_factory=lambda: os.urandom(64), repr=False)

    @property
    def opener(self) -> ShareOpener:
        return ShareOpener(self.sharing[0], self.half, self.seed)

    @property
    def half(self) -> bytes:
        """The public ML-KEM half."""
        private = mlkem.MLKEM1024PrivateKey.from_seed_bytes(self.seed)
        return private.public_key().public_bytes_raw()

    def principal(self) -> Principal:
        return Principal(
            id=self.name,
            name=self.name,
            roles=self.roles,
            keys=(
                *(SigningKey(spki=spki(key), token_class="software") for key in self.signing),
                ShareKey(
                    spki=spki(self.sharing[0]),
                    suite=HYBRID,
                    mlkem=self.half,
                    token_class="software",
                ),
            ),
        )


def answered(cast: Cast, bundle: Bundle, request: Statement[Request], who: str) -> bytes:
    """Approve as one officer, by both halves of his key where it has two."""
    someone = cast.people[who]
    return approve_requests(
        bundle,
        [request],
        situation=cast.situation(who),
        home=cast.home(who),
        signer=someone.signer,
        opener=someone.opener,
    )[0].data


def upgrade(cast: Cast, *names: str) -> None:
    """Put a policy in force in which some officers have hybrid share keys, and P-256 is taken."""
    for name in names:
        old = cast.people[name]
        cast.people[name] = Hybrid(
            name, old.roles, old.signing, [ec.generate_private_key(ec.SECP384R1())]
        )
        cast.certify(cast.people[name])
    people = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    cast.next_policy(principals=tuple(people))


@pytest.mark.parametrize("upgraded", [("sec1", "sec2", "sec3", "lead1", "lead2"), ("lead2",)])
def test_a_share_of_a_hybrid_slot_goes_to_a_hybrid_key(
    cast: Cast, tmp_path: Path, upgraded: tuple[str, ...]
) -> None:
    """No policy demands it: approvals recorded today would give away what the slots keep."""
    upgrade(cast, *upgraded)
    bundle = cast.seal()
    request = cast.request(bundle)
    assert HYBRID == request.predicate.suite
    answers = [answered(cast, bundle, request, name) for name in QUORUM]
    assert all(len(as_approval(data).predicate.sealed_share) > CIPHERTEXT_BYTES for data in answers)
    cast.open(bundle, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_a_bundle_without_hybrid_slots_asks_for_none(cast: Cast) -> None:
    """There is nothing to keep that its own slots would not give away."""
    assert "P384" == cast.request(cast.seal()).predicate.suite
