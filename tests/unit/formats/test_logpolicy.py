from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.errors import Incomplete, Malformed, Refused
from custody.formats.checkpoint import SignedCheckpoint, cosign_checkpoint
from custody.formats.logpolicy import LogPolicy, decode_log_policy, trust_key
from tests.unit.crypto.vectors import Vector, each
from tests.unit.log.logs import entries, signed, signer, witness_signer

KEYS = {f"w{n}": witness_signer(f"w{n}.example.com").note_key.vkey for n in range(1, 7)} | {
    "log": signer().note_key.vkey
}


def policy_of(text: str) -> bytes:
    """Write a vector's policy."""
    text = text.replace("|", "\n").replace("\\t", "\t").replace("\\x7f", "\x7f")
    for name, key in KEYS.items():
        text = text.replace("{" + name + "}", key)
    return text.encode()


def sets(text: str) -> list[set[str]]:
    """Read a vector's sets of witnesses."""
    return [set(part.split()) - {"-"} for part in text.split(";")]


@each("checkpoint/policies.txt", "policy", "good", "short", "bad")
def test_policies(vector: Vector) -> None:
    """Each is refused for its reason, or has the quorums that are listed and not the others."""
    data = policy_of(vector["policy"])
    if "bad" in vector:
        with pytest.raises(Malformed) as malformed:
            decode_log_policy(data)
        assert vector["bad"] in malformed.value.reason
        return
    policy = decode_log_policy(data)
    assert all(policy.satisfied_by(found) for found in sets(vector["good"]))
    if "short" in vector:
        assert not any(policy.satisfied_by(found) for found in sets(vector["short"]))


def two_of_three() -> LogPolicy:
    """A log with three witnesses, of whom two are enough."""
    lines = "".join(f"witness {n} {{w{n}}}|" for n in (1, 2, 3))
    return decode_log_policy(policy_of(f"log {{log}}|{lines}group g 2 1 2 3|quorum g|"))


def cosigned(*times: tuple[int, int]) -> SignedCheckpoint:
    """A checkpoint cosigned by witnesses, each at a time."""
    made = signed(entries(0, 3))
    lines = [
        cosign_checkpoint(made.checkpoint, witness_signer(f"w{n}.example.com"), seconds=at)
        for n, at in times
    ]
    return made.with_signatures(*lines)


def test_the_time_is_when_the_quorum_was_full() -> None:
    """Of two of three, the second witness decides; one that signs later changes nothing."""
    vouched = two_of_three().judge(cosigned((1, 500), (2, 300), (3, 400), (3, 900)))
    assert (("2", 300), ("3", 400), ("1", 500)) == vouched.witnesses
    assert 400 == vouched.seconds
    assert signer().note_key == vouched.log


def test_a_log_alone_states_no_time() -> None:
    """Without witnesses there is no time to go by."""
    assert None is trust_key(signer().note_key).judge(signed(entries(0, 1))).seconds


def test_too_few_witnesses_are_named() -> None:
    """What is missing is said, by the names of the policy; one witness twice counts once."""
    with pytest.raises(Incomplete) as incomplete:
        two_of_three().judge(cosigned((2, 300), (2, 400)))
    assert ("1", "3") == incomplete.value.missing


def test_witnesses_do_not_stand_in_for_the_log() -> None:
    """All witnesses together vouch for no checkpoint that the log has not signed."""
    found = cosigned((1, 1), (2, 2), (3, 3))
    lines = tuple(x for x in found.note.signatures if x.name != signer().name)
    bare = SignedCheckpoint(found.checkpoint, type(found.note)(found.note.text, lines))
    with pytest.raises(Refused) as refused:
        two_of_three().judge(bare)
    assert "log.signature" == refused.value.check


def test_an_unknown_log_is_refused() -> None:
    """A checkpoint of a log that the policy does not list is refused by its origin."""
    other = trust_key(signer("other.example.com").note_key)
    with pytest.raises(Refused) as refused:
        other.judge(signed(entries(0, 1)))
    assert "log.origin" == refused.value.check


def test_a_log_may_change_its_key() -> None:
    """While both keys are listed, a checkpoint by either is believed."""
    old = signer().note_key
    new = type(old)(old.name, old.kind, signer("new").note_key.public)
    policy = decode_log_policy(f"log {new.vkey}\nlog {old.vkey}\nquorum none\n".encode())
    assert old == policy.judge(signed(entries(0, 1))).log


@given(
    st.lists(
        st.lists(
            st.sampled_from([*KEYS.values(), "log", "witness", "group", "quorum", "a", "1", "#"]),
            max_size=5,
        ).map(" ".join)
    )
)
def test_junk_is_malformed(lines: list[str]) -> None:
    """Any lines are a policy or malformed: no other error comes."""
    with suppress(Malformed):
        policy = decode_log_policy("".join(f"{line}\n" for line in lines).encode())
        assert f"quorum {policy.quorum}" in lines


@pytest.mark.parametrize("name", [b"\xff", b"log.example.com\xed\xb2\x80"])
def test_a_key_whose_name_is_no_text_is_malformed(name: bytes) -> None:
    """Bytes that are no UTF-8 make no key name: they have no bytes to be hashed with."""
    _, rest = signer().note_key.vkey.encode().split(b"+", 1)
    with pytest.raises(Malformed):
        decode_log_policy(b"log " + name + b"+" + rest + b"\nquorum none\n")
