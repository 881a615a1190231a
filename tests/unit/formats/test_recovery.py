"""Recovery records and re-wrapped files: what follows from a seed, and what no reader takes."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody.crypto.quorum import Threshold
from custody.crypto.recoverykey import derive_key
from custody.crypto.slip39 import combine_seed, read_mnemonic
from custody.encoding import decode, encode
from custody.errors import Malformed
from custody.formats.envelope import decode_statement
from custody.formats.policy_text import parse_quorum
from custody.formats.recovery import (
    BreakGlass,
    RecoveryRecord,
    RecoveryShare,
    Rewrapped,
    SealedShare,
    share_digest,
    share_info,
    share_set,
)
from tests.unit.crypto.vectors import Vector, read
from tests.unit.formats.examples import VECTORS
from tests.unit.formats.strategies import manifests

RECORD = decode_statement(RecoveryRecord, (VECTORS / "recovery-record.dsse").read_bytes()).predicate
BROKEN = decode_statement(BreakGlass, (VECTORS / "break-glass.dsse").read_bytes()).predicate
KEYS = read("recovery/keys.txt", "seed", "suite", "spki", "mlkem", "recipient")
SHARES = read("recovery/shares.txt", "words", "salt", "digest")


@pytest.mark.parametrize("vector", KEYS, ids=lambda v: f"{v['suite']} {v['seed'][:4]}")
def test_a_seed_makes_the_key_that_is_written(vector: Vector) -> None:
    """Whoever has the seed makes this public key, and slots name it so."""
    key = derive_key(bytes.fromhex(vector["seed"]), vector["suite"])  # type: ignore[arg-type]
    hybrid = key.mlkem
    assert vector["spki"] == key.spki.hex()
    assert vector["mlkem"] == (hashlib.sha256(hybrid).hexdigest() if hybrid else "")
    assert vector["recipient"] == key.key_id


def test_shares_are_known_by_their_digests() -> None:
    """Any two of the three shares give the seed; each has its digest, and no other's."""
    shares = [read_mnemonic(vector["words"]) for vector in SHARES]
    for two in itertools.combinations(shares, 2):
        assert bytes(range(32)) == combine_seed(two)
    for vector in SHARES:
        share = RecoveryShare(
            group=0,
            member=0,
            holder="ida",
            salt=bytes.fromhex(vector["salt"]),
            digest=vector["digest"],
        )
        for other in SHARES:
            assert (other is vector) == share.matches(other["words"])
        assert share.matches(f"  {vector['words'].replace(' ', '   ')} ")
        assert vector["digest"] == share_digest(share.salt, vector["words"])


@pytest.mark.parametrize(
    "change",
    [
        {"shares": RECORD.shares[:2]},
        {"shares": RECORD.shares[::-1]},
        {"shares": (RECORD.shares[0], *RECORD.shares[:2])},
        {"shares": (*RECORD.shares[:2], replace(RECORD.shares[2], holder="eve"))},
        {"shares": (*RECORD.shares[:2], replace(RECORD.shares[2], group=1))},
        {"among": parse_quorum("ann")},
        {"among": parse_quorum("2 of (ann, ben)")},
        {"among": parse_quorum("1 of (ann, ben, cleo)")},
        {"set_id": 1 << 15},
        {"epoch": 0},
        {"iteration_exponent": 16},
        {"mlkem": bytes(10)},
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_its_people_is_malformed(change: dict[str, object]) -> None:
    """One share for each person of `among`, in order; numbers as SLIP-0039 has them."""
    with pytest.raises((Malformed, ValueError)):
        decode(RecoveryRecord, encode(replace(RECORD, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {"shares": BROKEN.shares[:1]},
        {"shares": BROKEN.shares[::-1]},
        {"shares": (BROKEN.shares[0], BROKEN.shares[0])},
        {"reason": ""},
        {"reason": "two\nlines"},
        {"manifest": "AB" * 32},
    ],
    ids=str,
)
def test_a_statement_that_names_shares_badly_is_malformed(change: dict[str, object]) -> None:
    """At least two shares, in order and each once, and a reason of one line."""
    with pytest.raises((Malformed, ValueError)):
        decode(BreakGlass, encode(replace(BROKEN, **change)))


SEALED = SealedShare(
    kind="custody/sealed-share/v1",
    record="ab" * 32,
    group=0,
    member=1,
    holder="ida",
    suite="P256",
    recipient="cd" * 32,
    sealed=bytes(200),
)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "custody/sealed-share/v2"},
        {"record": "AB" * 32},
        {"group": 16},
        {"member": -1},
        {"holder": "Ida"},
        {"suite": "MLKEM1024_P384"},
        {"recipient": "cd" * 31},
        {"sealed": b""},
        {"sealed": bytes(1025)},
    ],
    ids=str,
)
def test_a_sealed_share_that_says_something_else_is_malformed(change: dict[str, object]) -> None:
    """A place of SLIP-0039, a key that is wholly in a token, and not too much of anything."""
    assert SEALED == decode(SealedShare, encode(SEALED))
    with pytest.raises(Malformed):
        decode(SealedShare, encode(replace(SEALED, **change)))


def test_a_sealed_share_is_bound_to_record_place_and_recipient() -> None:
    """Each of them gives another info, and no two places give one."""
    made = [
        share_info(record * 32, group, member, recipient * 32)
        for record in ("ab", "cd")
        for group in (0, 1)
        for member in (0, 1)
        for recipient in ("01", "02")
    ]
    assert 16 == len(set(made))


@pytest.mark.parametrize(
    "tree",
    [
        "ida",
        "1 of (ida, ivan)",
        "2 of (1 of (ida, ivan), iris)",
        "2 of (2 of (a, 2 of (b, c)), d)",
        f"2 of ({', '.join(f'p{n}' for n in range(17))})",
        f"2 of ({', '.join(f'all(a{n}, b{n})' for n in range(17))})",
    ],
)
def test_what_slip39_cannot_say_is_no_set(tree: str) -> None:
    """One person, one of several, groups in groups, and more than sixteen."""
    with pytest.raises(Malformed):
        share_set(parse_quorum(tree))


def test_people_alone_are_one_group() -> None:
    """`2 of (a, b, c)` is one group; people beside groups are groups of one."""
    alone = share_set(parse_quorum("2 of (a, b, c)"))
    assert (1, [(2, ("a", "b", "c"))]) == (
        alone.threshold,
        [(group.threshold, group.holders) for group in alone.groups],
    )
    mixed = share_set(parse_quorum("2 of (2 of (a, b, c), d)"))
    assert (2, [(2, ("a", "b", "c")), (1, ("d",))]) == (
        mixed.threshold,
        [(group.threshold, group.holders) for group in mixed.groups],
    )
    assert isinstance(RECORD.among, Threshold)


@given(st.data())
def test_what_is_rewrapped_is_read_as_it_was_written(data: st.DataObject) -> None:
    """A re-wrapped file has one form; a byte more, less or other is malformed or another file."""
    manifest = data.draw(manifests())
    made = Rewrapped(kind="custody/rewrapped/v1", core=manifest.core, envelope=manifest.envelope)
    written = encode(made)
    assert made == decode(Rewrapped, written)
    at = data.draw(st.integers(0, len(written) - 1))
    bent = written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :]
    for bad in (written[:-1], written + b" ", bent):
        try:
            assert made != decode(Rewrapped, bad)
        except Malformed:
            continue


@given(st.binary(max_size=400))
def test_bytes_are_no_record(data: bytes) -> None:
    """Nothing but a document is a document, and nothing else is raised."""
    for kind in (RecoveryRecord, BreakGlass, Rewrapped):
        with pytest.raises(Malformed):
            decode(kind, data)
