"""Recovery is judged as of the last answer: a glass is broken, a key backed up, by what holds then.

Custodians' tokens and a site's in one store, as at a ceremony; typed at a terminal.
"""

from __future__ import annotations

import json

import pytest

from tests.release.test_backup_commands import Ceremony, ceremony
from tests.release.waiting import DAY, Typed, forgetful, type_late

__all__ = ["ceremony"]

#: When the policy is in force no more.
AGES = 800 * DAY


def late(world: Ceremony, who: str, *words: str, home: str = "") -> Typed:
    """Run a command of somebody's role at a terminal, where each question waits for ages."""
    actor = world[who]
    return type_late(actor, actor.role, *words, waits=AGES, home=home)


def refused(world: Ceremony, done: Typed, out: str) -> None:
    """Expect that the policy's end refused it, and that nothing was written."""
    assert "judged anew, as of the answer" in done.shown
    assert "not in force at" in done.shown
    assert (1, False) == (done.code, (world.folder / out).exists())


@pytest.fixture(scope="module")
def broken(ceremony: Ceremony) -> tuple[str, ...]:
    """A sealed bundle, and the words that break its glass."""
    for name in ("cas", "pub"):
        ceremony[name].run(ceremony[name].role, "trust", ceremony.pin)
    (ceremony.folder / "model").mkdir()
    (ceremony.folder / "model" / "weights").write_bytes(b"weights" * 1000)
    seal = ("publisher", "seal", "model", "--name", "tiny", "--release", "1", "--out", "bundle")
    ceremony["pub"].run(*seal)
    named = ("break-glass", "bundle", "--record", "recovery-1.dsse", "--reason", "fire")
    return (*named, *ceremony.shares("cas", "cyd"))


def test_no_glass_is_broken_under_a_policy_that_has_ended(
    ceremony: Ceremony, broken: tuple[str, ...]
) -> None:
    """Who answers after the policy's end breaks nothing: no envelope, no statement."""
    done = late(ceremony, "cas", *broken, "--out", "rewrapped-late")
    assert "break the glass? [y/N]: y" in done.shown
    refused(ceremony, done, "rewrapped-late")


def test_no_rewrapped_bundle_is_signed_under_a_policy_that_has_ended(
    ceremony: Ceremony, broken: tuple[str, ...]
) -> None:
    """Nor does the publisher sign what a broken glass gave."""
    ceremony["cas"].run("custodian", *broken, "--out", "rewrapped", "--yes")
    words = ("rewrap", "bundle", "rewrapped", "--out", "again")
    refused(ceremony, late(ceremony, "pub", *words), "again")


def test_no_key_is_backed_up_under_a_policy_that_has_ended(ceremony: Ceremony) -> None:
    """Nothing is asked but the PIN, and that is waited for as well."""
    ida = ceremony["ida"]
    ceremony.trust(ida.uri)
    words = ("backup", "wrapping-1.dsse", "--authority", "--out", "ca-late.dsse")
    refused(ceremony, late(ceremony, "ida", *words, home=forgetful(ida)), "ca-late.dsse")


@pytest.mark.parametrize("yes", [("--yes",), ()], ids=["at the PIN", "at the question"])
def test_no_token_trusts_a_key_under_a_policy_that_has_ended(
    ceremony: Ceremony, yes: tuple[str, ...]
) -> None:
    """Whether the question or the SO's PIN was waited for, the token trusts nothing after it."""
    ida, site = ceremony["ida"], ceremony.token(f"site-{len(yes)}")
    words = ("recovery", "trust-key", "wrapping-1.dsse", "--token", str(site), *yes)
    done = late(ceremony, "ida", *words)
    assert bool(yes) == ("PIN of the security officer" in done.shown)
    refused(ceremony, done, "nothing")
    made = ida.run("token", "make-kek", str(site), "--label", "kek", "--recoverable", "--json")
    kek = ("--kek", json.loads(made.stdout)["check"], "--token", str(site))
    backup = ("custodian", "backup", "wrapping-1.dsse", *kek, "--out", "kek-late.dsse")
    assert "security officer has not trusted" in ida.run(*backup, code=1).stderr


def test_no_key_comes_back_under_a_policy_that_has_ended(ceremony: Ceremony) -> None:
    """A late yes brings no key into a new token."""
    ida, new = ceremony["ida"], ceremony.token("new-late")
    ceremony.trust(ida.uri)
    ida.run("custodian", "backup", "wrapping-1.dsse", "--authority", "--out", "ca.dsse")
    shares = ceremony.shares("ida", "cyd")
    words = ("restore", "ca.dsse", "--record", "recovery-1.dsse", "--token", str(new), *shares)
    done = late(ceremony, "ida", *words)
    assert "restore it? [y/N]: y" in done.shown
    refused(ceremony, done, "nothing")
    assert [] == json.loads(ida.run("token", "audit", str(new), "--json").stdout)["objects"]
