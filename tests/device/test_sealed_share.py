"""Shares of a recovery key sealed to real tokens: opened by their holder's, and by no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.quorum import Person, Threshold
from custody.crypto.signature import public_bytes
from custody.encoding import decode, encode
from custody.errors import Refused
from custody.formats.policy import Principal, ShareKey, SigningKey
from custody.formats.recovery import SealedShare
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.ops.keys import Signer
from custody.ops.recovery import MadeRecovery, RecoveryOrder, make_recovery, rebuilt_key
from custody.ops.sealed_share import open_share, recipient_of, seal_shares
from tests.device.conftest import Bench

NAMES = ("ida", "ivan", "iris")
NOW = datetime(2027, 1, 5, tzinfo=UTC)


@dataclass
class Circle:
    """Two holders with tokens, one with paper."""

    tokens: dict[str, Pkcs11Token]
    made: MadeRecovery
    sealed: dict[str, SealedShare]
    paper: tuple[str, ...]

    def open(self, who: str, sealed: SealedShare) -> str:
        """Open a share by somebody's token."""
        with self.tokens[who].session():
            return open_share(self.tokens[who], sealed, self.made.record)


def circle_of(tokens: dict[str, Pkcs11Token], *, epoch: int = 1) -> Circle:
    """Make a recovery key, and seal the shares of those who have tokens."""
    order = RecoveryOrder(
        environment="production",
        epoch=epoch,
        suite="P256",
        among=Threshold(k=2, of=tuple(Person(principal=name) for name in NAMES)),
    )
    signer = Signer(ec.generate_private_key(ec.SECP256R1()))
    made = make_recovery(order, signer=signer, token_random=None, now=NOW)
    curves = {"ida": ec.SECP256R1(), "ivan": ec.SECP384R1()}
    recipients = {}
    for name, token in tokens.items():
        key = token.make(KeyRole.SHARE, f"{name} share", curves[name])
        recipients[name] = ShareKey(
            spki=public_bytes(key.public_key()),
            suite="P256" if name == "ida" else "P384",
            mlkem=None,
            token_class="software",
        )
    files, paper = seal_shares(made, recipients)
    return Circle(
        tokens,
        made,
        {each.holder: decode(SealedShare, each.data) for each in files},
        tuple(handed.words for handed in paper),
    )


@pytest.fixture
def tokens(bench: Bench) -> Iterator[dict[str, Pkcs11Token]]:
    """Two people's tokens."""
    uris = {name: bench.token(name) for name in ("ida", "ivan")}
    with ExitStack() as stack:
        yield {name: stack.enter_context(open_token(uri)) for name, uri in uris.items()}


def test_two_tokens_rebuild_the_key_and_one_with_paper_too(
    tokens: dict[str, Pkcs11Token],
) -> None:
    """Sealed shares are shares: they open by their holders' tokens and rebuild the key."""
    circle = circle_of(tokens)
    assert ["ida", "ivan"] == sorted(circle.sealed)
    opened = {name: circle.open(name, each) for name, each in circle.sealed.items()}
    (paper,) = circle.paper
    for shares in ([opened["ida"], opened["ivan"]], [opened["ida"], paper]):
        with rebuilt_key(circle.made.record, shares, b"") as key:
            assert circle.made.record.predicate.key_id == key.key_id
    for name, each in circle.sealed.items():
        words = opened[name].split()
        # One word may be a field's name; two in a row are nobody's but the share's.
        assert not any(f"{one} {two}".encode() in encode(each) for one, two in pairwise(words))


def test_a_sealed_share_opens_by_its_holders_token_alone(tokens: dict[str, Pkcs11Token]) -> None:
    """Another's token has no key for it; moved to another place or person it does not open."""
    circle = circle_of(tokens)
    ida, ivan = circle.sealed["ida"], circle.sealed["ivan"]
    with pytest.raises(Refused) as caught:
        circle.open("ivan", ida)
    assert "key.public" == caught.value.check
    for bent in (
        replace(ida, member=1),
        replace(ida, group=1),
        replace(ida, sealed=ida.sealed[:-1] + bytes([ida.sealed[-1] ^ 1])),
        replace(ida, sealed=ivan.sealed),
        replace(ida, sealed=b"\0"),
    ):
        with pytest.raises(Refused) as caught:
            circle.open("ida", bent)
        assert "slot.open" == caught.value.check
    another = circle_of(tokens, epoch=2)
    with pytest.raises(Refused) as caught:
        another.open("ida", ida)
    assert "recovery.set" == caught.value.check


def test_a_share_is_sealed_to_holders_with_keys_in_tokens() -> None:
    """Who holds no share, or has no key wholly in a token, is named before anything is made."""
    circle = circle_of({})
    signing = SigningKey(spki=b"spki", token_class="software")
    hybrid = ShareKey(spki=b"s", suite="MLKEM1024_P384", mlkem=bytes(1568), token_class="software")
    person = Principal(id="ida", name="ida", roles=("custodian",), keys=(signing, hybrid))
    with pytest.raises(Refused, match="ida offers no key"):
        recipient_of(person)
    key = ShareKey(spki=b"s", suite="P256", mlkem=None, token_class="software")
    assert key == recipient_of(replace(person, keys=(signing, hybrid, key)))
    with pytest.raises(Refused, match="eve holds no share"):
        seal_shares(circle.made, {"eve": key})
    assert 3 == len(circle.paper)
