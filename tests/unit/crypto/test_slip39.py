"""Mnemonics: the official vectors, another implementation, and what people get wrong."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shamir_mnemonic.wordlist import WORDLIST

from custody.crypto.recoverykey import derive_key, derive_key_pair, expand_seed
from custody.crypto.slip39 import (
    WORDS,
    Mnemonic,
    check_passphrase,
    check_together,
    combine_seed,
    missing_shares,
    read_mnemonic,
    split_seed,
)
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from tests.unit.crypto.vectors import SHARED

SEED = bytes(range(32))
#: Two of three groups: 2 of 3, 3 of 5, and one person.
GROUPS = ((2, 3), (3, 5), (1, 1))
SET = split_seed(SEED, group_threshold=2, groups=GROUPS)
OTHER = split_seed(SEED, group_threshold=2, groups=GROUPS)
WORDS_OF_ONE = SET[0][0].split()


def _read(words: Sequence[str]) -> list[Mnemonic]:
    return [read_mnemonic(text) for text in words]


def test_the_official_vectors() -> None:
    """All 45 vectors of SLIP-0039: what is valid gives its secret, all else is refused."""
    path = SHARED / "slip39" / "vectors.json"
    if not path.exists():
        pytest.skip("SLIP-0039's vectors are not here: they lie in ../shared/vectors/slip39")
    vectors = json.loads(path.read_text())
    assert 45 == len(vectors)
    refused = 0
    for title, mnemonics, secret, _ in vectors:
        if secret:
            assert secret == combine_seed(_read(mnemonics), b"TREZOR").hex(), title
            continue
        refused += 1
        with pytest.raises(CustodyError):
            combine_seed(_read(mnemonics), b"TREZOR")
    assert 30 == refused


def test_dhkem_p256_vectors_of_rfc_9180() -> None:
    """DeriveKeyPair gives the private keys of RFC 9180 A.3.1."""
    for ikm, scalar in (
        (
            "4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e",
            "4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb",
        ),
        (
            "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550",
            "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
        ),
    ):
        key = derive_key_pair(ec.SECP256R1(), bytes.fromhex(ikm))
        assert int(scalar, 16) == key.private_numbers().private_value


def test_a_seed_makes_one_key_of_each_suite() -> None:
    """The same seed makes the same keys, another seed others, and no two names the same bytes."""
    seen = set()
    for suite in ("P256", "P384", "MLKEM1024_P384"):
        key = derive_key(SEED, suite)
        assert key.key_id == derive_key(SEED, suite).key_id
        seen |= {key.key_id, derive_key(SEED[::-1], suite).key_id}
    assert 6 == len(seen)
    assert 3 == len({bytes(expand_seed(SEED, name, 32)) for name in ("ec", "mlkem", "rsa")})
    with pytest.raises(Malformed):
        derive_key(SEED[:31], "P256")


def test_every_minimal_set_gives_the_seed_and_none_smaller() -> None:
    """Every choice of two groups and enough people in each gives the seed; one less does not."""
    ways = [
        list(itertools.combinations(group, needed))
        for group, (needed, _) in zip(SET, GROUPS, strict=True)
    ]
    for one, two in itertools.combinations(ways, 2):
        for left, right in zip(one, itertools.cycle(two), strict=False):
            shares = _read([*left, *right])
            assert SEED == combine_seed(shares)
            for at in range(len(shares)):
                with pytest.raises(Incomplete) as caught:
                    combine_seed(shares[:at] + shares[at + 1 :])
                assert caught.value.missing


@pytest.mark.parametrize("position", range(1, WORDS + 1))
def test_a_wrong_word_is_named_by_its_position(position: int) -> None:
    """A word mistyped at any of the 33 positions is found by the checksum alone, and named."""
    chance = random.Random(position)
    for _ in range(4):
        words = list(WORDS_OF_ONE)
        words[position - 1] = chance.choice([w for w in WORDLIST if w != words[position - 1]])
        with pytest.raises(Refused, match=rf"read word {position} again") as caught:
            read_mnemonic(" ".join(words))
        assert "recovery.checksum" == caught.value.check


@pytest.mark.parametrize("position", [1, 17, WORDS])
def test_a_word_of_no_list_is_named(position: int) -> None:
    """A misspelt word is named before anything is computed; no word of a share is repeated."""
    words = list(WORDS_OF_ONE)
    words[position - 1] = "acdemic"
    with pytest.raises(Refused, match=rf"word {position} is no word") as caught:
        read_mnemonic(" ".join(words))
    assert not set(str(caught.value).split()) & (set(WORDS_OF_ONE) - {"again", "is"})


@pytest.mark.parametrize("position", range(1, WORDS))
def test_words_that_changed_places_are_named(position: int) -> None:
    """Two neighbours in the wrong order are told from two wrong words."""
    words = list(WORDS_OF_ONE)
    words[position - 1], words[position] = words[position], words[position - 1]
    if words == WORDS_OF_ONE:
        assert read_mnemonic(" ".join(words))
        return
    with pytest.raises(Refused, match=rf"words {position} and {position + 1} may have"):
        read_mnemonic(" ".join(words))


def test_two_wrong_words_name_no_third() -> None:
    """With two words wrong no single position is blamed: the checksum's distance is four."""
    chance = random.Random(39)
    for _ in range(40):
        words = list(WORDS_OF_ONE)
        for at in chance.sample(range(0, WORDS, 2), 2):
            words[at] = chance.choice([w for w in WORDLIST if w != words[at]])
        with pytest.raises(Refused, match="more than one word is wrong"):
            read_mnemonic(" ".join(words))


@pytest.mark.parametrize("change", [lambda w: w[:-1], lambda w: w[1:], lambda w: [*w, w[3]]])
def test_a_word_too_few_or_too_many_is_said(change: object) -> None:
    """A share of 32 or 34 words is not searched for a wrong one: it says how many there are."""
    words = change(list(WORDS_OF_ONE))  # type: ignore[operator]
    with pytest.raises(Refused, match=f"has {len(words)} words") as caught:
        read_mnemonic(" ".join(words))
    assert "recovery.length" == caught.value.check


def test_shares_of_another_set_too_many_and_twice_are_named() -> None:
    """Which share is of another set, which is there twice, and which group has one to spare."""
    for shares, check, said in (
        ((SET[0][0], OTHER[0][1]), "recovery.set", "group 1, share 2"),
        ((SET[0][0], SET[1][0], SET[0][0]), "recovery.duplicate", "group 1, share 1"),
        ((*SET[0], SET[2][0]), "recovery.too-many", "group 1"),
        ((*SET[0][:2], *SET[1][:3], SET[2][0]), "recovery.too-many", "more groups"),
    ):
        with pytest.raises(Refused, match=said) as caught:
            check_together(_read(shares))
        assert check == caught.value.check
        with pytest.raises(CustodyError):
            combine_seed(_read(shares))


def test_what_is_missing_is_said() -> None:
    """Before enough shares are there, what is missing is said by group."""
    assert ("a first share",) == missing_shares([])
    assert ("1 more of group 1", "shares of 1 more group") == missing_shares(_read(SET[0][:1]))
    assert ("2 more of group 2",) == missing_shares(_read((SET[2][0], SET[1][0])))
    assert () == missing_shares(_read((*SET[0][1:], SET[2][0])))


def test_a_wrong_passphrase_gives_another_secret_and_no_error() -> None:
    """Why the public key is compared: SLIP-0039 itself takes every passphrase."""
    made = split_seed(SEED, group_threshold=1, groups=[(2, 3)], passphrase=b"one")[0]
    assert SEED == combine_seed(_read(made[:2]), b"one")
    assert SEED != combine_seed(_read(made[:2]), b"two")
    for bad in (b"\n", "é".encode(), b"x" * 257):
        with pytest.raises(Malformed):
            check_passphrase(bad)
    with pytest.raises(Malformed):
        split_seed(SEED, group_threshold=1, groups=[(1, 2)])


def test_a_repr_holds_no_words() -> None:
    """A share in a log line or a traceback shows its place and not its words."""
    assert not any(word in repr(read_mnemonic(SET[0][0])).split() for word in WORDS_OF_ONE)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.binary(min_size=32, max_size=32),
    groups=st.lists(
        st.integers(2, 5).flatmap(lambda n: st.tuples(st.integers(2, n), st.just(n))),
        min_size=1,
        max_size=4,
    ),
    data=st.data(),
)
def test_any_seed_comes_back(
    seed: bytes, groups: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever the seed and the groups, any minimal choice of shares gives it back."""
    threshold = data.draw(st.integers(1, len(groups)))
    made = split_seed(seed, group_threshold=threshold, groups=groups)
    chosen = data.draw(st.permutations(range(len(groups))))[:threshold]
    shares = [
        words for at in chosen for words in data.draw(st.permutations(made[at]))[: groups[at][0]]
    ]
    assert seed == combine_seed(_read(data.draw(st.permutations(shares))))


@given(st.text(max_size=300) | st.lists(st.sampled_from(WORDLIST), max_size=40).map(" ".join))
@example("")
@example(" ".join(WORDLIST[:1] * WORDS))
def test_any_text_is_a_share_or_refused(text: str) -> None:
    """Words of the list and any other text end in a share or in a refusal, and nothing else."""
    try:
        assert WORDS_OF_ONE == [] or read_mnemonic(text).words
    except Refused as error:
        assert error.check.startswith("recovery.")  # noqa: PT017 - either end is good


def test_random_seeds_differ() -> None:
    """Two splits of one seed are two sets: their ids and words differ."""
    seed = os.urandom(32)
    one, two = (split_seed(seed, group_threshold=1, groups=[(2, 2)])[0] for _ in range(2))
    assert read_mnemonic(one[0]).set_id != read_mnemonic(two[0]).set_id or one != two
