"""One token listed as two people's by its key and that key's negative, under two names of keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from custody.crypto.signature import verify
from custody.rules.holdings import find_hands
from tests.release.cast import Cast, PersonKeys, person, spki
from tests.release.expect import refused
from tests.release.test_holdings import people, tree_of


def negative(keys: Sequence[Any]) -> list[ec.EllipticCurvePrivateKey]:
    """Return n − d of each key d."""
    return [
        ec.derive_private_key(
            key.curve.group_order - key.private_numbers().private_value, key.curve
        )
        for key in keys
    ]


def turned(someone: PersonKeys, name: str) -> PersonKeys:
    """Return another person, whose keys are in ``someone``'s token all the same."""
    return PersonKeys(name, someone.roles, negative(someone.signing), negative(someone.sharing))


def test_a_token_signs_and_agrees_by_the_negative_of_its_key(cast: Cast) -> None:
    """What a token does with d is all that it takes for n − d: a digest, and an x-coordinate."""
    token, other = cast.people["sec3"], turned(cast.people["sec3"], "sec9")
    key = token.signing[0]
    order = key.curve.group_order
    digest = int.from_bytes(hashlib.sha256(b"said by sec9").digest(), "big")
    asked = (-digest % order).to_bytes(32, "big")
    r, s = decode_dss_signature(key.sign(asked, ec.ECDSA(Prehashed(hashes.SHA256()))))
    assert spki(key) != spki(other.signing[0])
    verify(spki(other.signing[0]), b"said by sec9", encode_dss_signature(r, min(s, order - s)))
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    mine, his = (k.exchange(ec.ECDH(), peer) for k in (token.sharing[0], other.sharing[0]))
    assert mine == his


def test_a_key_and_its_negative_are_not_two_peoples(cast: Cast) -> None:
    """The policy is refused in which one token could be two of its officers."""
    cast.people["sec9"] = turned(cast.people["sec3"], "sec9")
    cast.certify(cast.people["sec9"])
    cast.next_policy(principals=people(cast), quorum=tree_of("sec1", "sec3", "sec9"))
    with refused(cast, "policy.keys-distinct"):
        cast.situation("sec1")


def test_a_key_does_not_change_hands_as_its_negative(cast: Cast) -> None:
    """Nor one after the other, in two versions."""
    cast.people["sec9"] = turned(cast.people["sec3"], "sec9")
    cast.certify(cast.people["sec9"])
    cast.next_policy(principals=people(cast, "sec3"), quorum=tree_of("sec1", "sec2", "sec9"))
    with refused(cast, "policy.keys-stay"):
        cast.situation("sec1")


def test_the_negative_of_a_former_key_is_the_same_persons(cast: Cast) -> None:
    """Over three versions no step shows it; whoever counts hands does."""
    first = cast.people["sec3"]
    cast.people["sec3"] = person("sec3", "officer")
    cast.next_policy(principals=people(cast))
    cast.people["sec9"] = turned(first, "sec9")
    cast.next_policy(principals=people(cast), quorum=tree_of("sec1", "sec3", "sec9"))
    hands = find_hands(statement.predicate for statement in cast.documents.policies)
    assert ("sec3", "sec9") == hands["sec3"] == hands["sec9"]
