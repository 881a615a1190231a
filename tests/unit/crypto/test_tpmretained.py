"""Policies of kept keys, without a TPM; tests/device/tpm/test_retained_updates.py has one agree."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from custody.crypto import tpmretained
from custody.crypto.tpmpolicy import OR_WIDTH, officer_key_name, policy_authorize, policy_nv
from custody.crypto.tpmretained import (
    EPOCHS,
    KeptCounters,
    Line,
    authorised_message,
    first_state_policy,
    retained_policy,
    share_policy,
    share_steps,
)
from custody.errors import Refused
from custody.formats.evidence import counter_public, nv_name
from tests.unit.crypto.vectors import Vector, each
from tests.vectors.tpmretained.make import EPOCH_INDEX, OWN_INDEX, PCRS, spki

HEADERS = (
    "keys",
    "environment",
    "name",
    "epoch",
    "authorised-epoch",
    "pcr-digest",
    "own-counter",
    "epoch-counter",
    "approved-policy",
    "policy-ref",
    "a-hash",
    "sealed",
    "first-state",
    "share",
)
COUNTERS = KeptCounters(
    own_name=b"\0\x0b" + bytes(32), own=7, epoch_name=b"\0\x0b" + bytes([1]) * 32, epoch=3
)
LINE = Line(environment=bytes(32), name="lab", epoch=1)
KEYS = (spki(1), spki(2))


@each("tpmretained/policies.txt", *HEADERS)
def test_what_is_signed(vector: Vector) -> None:
    """The message is approvedPolicy and policyRef, and its digest the TPM's aHash."""
    message = authorised_message(
        PCRS,
        bytes.fromhex(vector["pcr-digest"]),
        environment=bytes.fromhex(vector["environment"]),
        name=vector["name"],
        epoch=int(vector["authorised-epoch"]),
    )
    assert vector["approved-policy"] + vector["policy-ref"] == message.hex()
    assert vector["a-hash"] == hashlib.sha256(message).hexdigest()


@each("tpmretained/policies.txt", *HEADERS)
def test_policies(vector: Vector) -> None:
    """The calculator gives each vector's authPolicies: one state, the first of many, a share."""
    counters = KeptCounters(
        own_name=nv_name(counter_public(OWN_INDEX).pack()),
        own=int(vector["own-counter"]),
        epoch_name=nv_name(counter_public(EPOCH_INDEX).pack()),
        epoch=int(vector["epoch-counter"]),
    )
    line = Line(
        environment=bytes.fromhex(vector["environment"]),
        name=vector["name"],
        epoch=int(vector["epoch"]),
    )
    digest = bytes.fromhex(vector["pcr-digest"])
    keys = [spki(int(number)) for number in vector["keys"].split()]
    sealed = retained_policy(PCRS, digest, nv_name=counters.own_name, counter=counters.own)
    assert vector["sealed"] == sealed.hex()
    assert vector["first-state"] == first_state_policy(PCRS, digest, counters).hex()
    assert vector["share"] == share_policy(keys, line=line, counters=counters).hex()


@pytest.mark.parametrize("count", [1, 2, 9, 16])
def test_steps_reach_the_policy_from_every_branch(count: int) -> None:
    """From each key and epoch the PolicyOR commands lead to one digest, each met in its turn."""
    keys = [spki(number) for number in range(1, count + 1)]
    wanted = share_policy(keys, line=LINE, counters=COUNTERS)
    for key in (keys[0], keys[-1]):
        for epoch in range(LINE.epoch, LINE.epoch + EPOCHS):
            digest = policy_authorize(officer_key_name(key), LINE.ref(epoch))
            operand = tpmretained.epoch_operand(COUNTERS, epoch - LINE.epoch)
            digest = policy_nv(digest, COUNTERS.epoch_name, operand=operand, offset=0, operation=9)
            for step in share_steps(keys, key, epoch, line=LINE, counters=COUNTERS):
                assert digest in step.branches
                assert 2 <= len(step.branches) <= OR_WIDTH
                joined = bytes(32) + b"\0\0\x01\x71" + b"".join(step.branches)
                digest = hashlib.sha256(joined).digest()
            operand = COUNTERS.own.to_bytes(8, "big")
            assert wanted == policy_nv(
                digest, COUNTERS.own_name, operand=operand, offset=0, operation=0
            )


@pytest.mark.parametrize("epoch", [0, EPOCHS + 1, 2**31])
def test_an_epoch_out_of_reach_has_no_steps(epoch: int) -> None:
    """Before the first epoch, and 64 epochs on, there is nothing to show."""
    assert not LINE.covers(epoch)
    with pytest.raises(ValueError, match="no branch"):
        share_steps(KEYS, KEYS[0], epoch, line=LINE, counters=COUNTERS)


def test_everything_is_in_the_policy() -> None:
    """Another line, counter, key, or order of keys is another policy."""
    other = [
        share_policy(KEYS, line=line, counters=counters)
        for line, counters in (
            (replace(LINE, environment=bytes([1]) * 32), COUNTERS),
            (replace(LINE, name="lab2"), COUNTERS),
            (replace(LINE, epoch=2), COUNTERS),
            (LINE, replace(COUNTERS, own=8)),
            (LINE, replace(COUNTERS, epoch=4)),
            (LINE, replace(COUNTERS, own_name=COUNTERS.epoch_name)),
            (LINE, replace(COUNTERS, epoch_name=COUNTERS.own_name)),
        )
    ]
    other += [
        share_policy(keys, line=LINE, counters=COUNTERS)
        for keys in (KEYS, KEYS[:1], KEYS[::-1], (KEYS[0], spki(3)))
    ]
    assert len(other) == len(set(other))


def test_a_state_is_signed_for_one_purpose() -> None:
    """Environment, name and epoch do not trade bytes with each other."""
    refs = {
        tpmretained.state_ref(environment, name, epoch)
        for environment in (bytes(32), bytes([1]) * 32)
        for name in ("lab", "lab1", "lab-1")
        for epoch in (1, 11, 256)
    }
    assert 18 == len(refs)


def test_an_enroller_needs_a_p256_key() -> None:
    """A key that not every TPM verifies makes no policy."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from custody.crypto.signature import public_bytes

    other = public_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(Refused):
        share_policy([other], line=LINE, counters=COUNTERS)
