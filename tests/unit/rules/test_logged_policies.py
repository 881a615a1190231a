"""Policies that demand a log: what is sound, and what of it is in H's policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given

from custody.crypto.notekeys import KeyKind, NoteKey
from custody.crypto.quorum import MAX_DEPTH, Person, Threshold, minimal_sets
from custody.crypto.signature import public_bytes
from custody.crypto.tpmpolicy import (
    Conditions,
    Signed,
    host_policy,
    key_names,
    officer_key_name,
    policy_counter_timer,
    policy_nv,
    policy_pcr,
    policy_signed,
    quorum_policy,
    steps,
)
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.policy import Policy
from custody.formats.policy_text import parse_quorum
from custody.rules.policy import check_policy
from custody.rules.quorum import LOG_PATH, signing_path, signing_tree
from tests.unit.formats.strategies import TEXTS
from tests.unit.people import policy, signer

ORIGIN = "log.example.com/models"
TERMS = bytes(range(32))


@cache
def log_key(name: str = ORIGIN) -> NoteKey:
    """A log's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return NoteKey(name, KeyKind.ECDSA, public_bytes(key.public_key()))


def ed25519_key(kind: KeyKind) -> NoteKey:
    """A key of another kind."""
    public = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return NoteKey("w1.example.com", kind, public)


def logged(*lines: str) -> Policy:
    """A policy that demands the log."""
    return policy(logged=lines or (f"log {log_key().vkey}", "quorum none"))


def failing(made: Policy) -> set[str]:
    """Which checks of a policy fail."""
    return {v.check for v in check_policy(made) if v.outcome == "fail"}


def test_a_policy_may_demand_a_log() -> None:
    """With a log's key, and with witnesses in groups and addresses, it is sound."""
    assert set() == failing(policy())
    assert set() == failing(logged())
    witness = ed25519_key(KeyKind.COSIGNATURE).vkey
    lines = (
        f"log {log_key().vkey} https://log.example.com/models",
        f"witness w1 {witness} https://w1.example.com",
        "group g any w1",
        "quorum g",
    )
    assert set() == failing(logged(*lines))
    assert "https://log.example.com/models" == logged(*lines).log_policy().logs[0].url  # type: ignore[union-attr]


BAD: dict[str, Callable[[], tuple[str, ...]]] = {
    "no quorum": lambda: (f"log {log_key().vkey}",),
    "no log": lambda: ("quorum none",),
    "two logs": lambda: (
        f"log {log_key().vkey}",
        f"log {log_key('other.example.com').vkey}",
        "quorum none",
    ),
    "an Ed25519 log, which no TPM knows": lambda: (
        f"log {ed25519_key(KeyKind.ED25519).vkey}",
        "quorum none",
    ),
    "a witness's key as the log's": lambda: (
        f"log {ed25519_key(KeyKind.COSIGNATURE).vkey}",
        "quorum none",
    ),
    "a quorum of nobody": lambda: (f"log {log_key().vkey}", "quorum w1"),
    "two spaces": lambda: (f"log  {log_key().vkey}", "quorum none"),
    "a comment": lambda: ("# ours", f"log {log_key().vkey}", "quorum none"),
    "an empty line": lambda: (f"log {log_key().vkey}", "", "quorum none"),
    "words of another file": lambda: ("allow all",),
    "a key with another ID": lambda: (
        f"log {log_key().vkey.replace(log_key().id.hex(), '00000000')}",
        "quorum none",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_log_policy_is_refused_by_name(name: str) -> None:
    """`policy.logged` fails, and nothing that is made of it passes."""
    fails = failing(logged(*BAD[name]()))
    assert "policy.logged" in fails
    assert fails <= {"policy.logged", "policy.tokens"}


@given(lines=st.lists(TEXTS | st.sampled_from(("quorum none", "group g any w1")), min_size=1))
def test_any_lines_are_a_log_policy_or_none(lines: list[str]) -> None:
    """Whatever a policy's lines say, judging them ends in a verdict."""
    made = policy(logged=tuple(lines))
    with contextlib.suppress(Malformed):
        assert made.log_policy() is not None
    assert {v.check for v in check_policy(made)} >= {"policy.logged", "policy.keys-distinct"}


def test_the_logs_key_is_nobody_elses() -> None:
    """An officer who keeps the log would fill two leaves by one key."""
    key = NoteKey(ORIGIN, KeyKind.ECDSA, signer("sec1").spki)
    assert {"policy.keys-distinct"} == failing(logged(f"log {key.vkey}", "quorum none"))


def test_the_log_is_one_more_leaf() -> None:
    """H's policy is the quorum, then PolicySigned by the log, then what else it demands."""
    conditions = Conditions(
        pcrs=(0, 7),
        pcr_digest=bytes(32),
        nv_name=b"\x00\x0b" + bytes(32),
        counter=7,
        deadline_ms=1000,
        reset_count=1,
        restart_count=0,
    )
    bare, officers = signing_tree(policy())
    digest = quorum_policy(bare, key_names(officers), ref=TERMS)
    digest = policy_signed(digest, officer_key_name(log_key().public), TERMS)
    digest = policy_pcr(digest, (0, 7), bytes(32))
    operand = conditions.counter_operand
    digest = policy_nv(digest, conditions.nv_name, operand=operand, offset=0, operation=0)
    for operand, offset, operation in (
        (conditions.deadline_operand, 8, 5),
        (conditions.boot_operand, 16, 0),
    ):
        digest = policy_counter_timer(digest, operand=operand, offset=offset, operation=operation)
    tree, spkis = signing_tree(logged())
    assert digest == host_policy(tree, spkis, terms=TERMS, conditions=conditions)
    assert log_key().public == spkis[LOG_PATH]
    assert digest != host_policy(bare, officers, terms=TERMS, conditions=conditions)


def test_the_steps_need_the_log() -> None:
    """A quorum of officers is shown first, and without the log it is incomplete."""
    made = logged()
    tree, spkis = signing_tree(made)
    paths = [signing_path(made, signer(name).key_id) for name in ("sec1", "sec2")]
    assert ["0/0", "0/1"] == paths
    have = [path for path in paths if path]
    with pytest.raises(Incomplete) as error:
        steps(tree, have, names=key_names(spkis), ref=TERMS)
    assert (ORIGIN,) == tuple(error.value.missing)
    done = steps(tree, [*have, LOG_PATH], names=key_names(spkis), ref=TERMS)
    assert ["0/0", "0/1", LOG_PATH] == [step.leaf for step in done if isinstance(step, Signed)]


def test_the_tree_may_be_one_less_deep() -> None:
    """A tree that is as deep as may be is too deep for H's policy once the log is above it."""
    node = parse_quorum("2 of (sec1, sec2, sec3)")
    for _ in range(MAX_DEPTH - 1):
        node = Threshold(k=2, of=(node, Person(principal="sec1")))
    minimal_sets(signing_tree(policy(quorum=node))[0])
    lines = (f"log {log_key().vkey}", "quorum none")
    with pytest.raises(Refused) as refused:
        minimal_sets(signing_tree(policy(quorum=node, logged=lines))[0])
    assert "policy.quorum" == refused.value.check
