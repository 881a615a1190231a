"""Nobody types the words of his share to learn what the files said already.

No test here has a terminal: where words would be asked for, it is `Unavailable` (3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.release.test_backup_commands import Ceremony, ceremony
from tests.release.waiting import forgetful

__all__ = ["ceremony"]

ASKED = "a terminal that can be cleared"
GLASS = ("custodian", "break-glass", "bundle", "--record", "recovery-1.dsse", "--yes")
BROKEN = (*GLASS, "--reason", "fire", "--out", "rewrapped")
DRILL = ("custodian", "drill", "recovery-1.dsse", "bundle")
SEAL = ("publisher", "seal", "model", "--name", "tiny", "--release", "1", "--out")
REVOKED = "sec1's key was revoked: custodians sign a policy without him, or with a new key of his"
NO_KEY = "officer sec1 has no share key with a certificate in force"


@pytest.fixture(scope="module")
def world(ceremony: Ceremony) -> Ceremony:
    """Everybody trusts the policy, and a bundle is sealed."""
    for name in ("cas", "pub"):
        ceremony[name].run(ceremony[name].role, "trust", ceremony.pin)
    (ceremony.folder / "model").mkdir()
    (ceremony.folder / "model" / "weights").write_bytes(b"weights" * 1000)
    ceremony["pub"].run(*SEAL, "bundle")
    return ceremony


@contextmanager
def beside(world: Ceremony, revoked: str) -> Iterator[None]:
    """Put a list into the environment that revokes somebody, for the block."""
    keys = [str(path) for path in sorted((world.folder / "env").glob(f"{revoked}.*.cer"))]
    listed = world.folder / "env/authority-9.crl"
    ida = world["ida"]
    kept = (ida.home / "authority.crl").read_bytes()
    ida.run(
        "custodian", "revoke", *keys, "--reason", "keyCompromise", "--out", str(listed), "--yes"
    )
    try:
        yield
    finally:
        listed.unlink()
        (ida.home / "authority.crl").write_bytes(kept)


def test_words_are_asked_for_when_nothing_else_is_wrong(world: Ceremony) -> None:
    """What the other tests here rest on."""
    assert ASKED in world["cas"].run(*BROKEN, code=3).stderr
    assert ASKED in world["cas"].run(*DRILL, code=3).stderr
    word = ("custodian", "recovery", "wrapping-key", "recovery-1.dsse", "--out", "wrapping-2.dsse")
    assert ASKED in world["cas"].run(*word, code=3).stderr


def test_a_reason_that_cannot_be_signed_is_refused_before(world: Ceremony) -> None:
    """A reason of two lines is told of as such."""
    said = world["cas"].run(*GLASS, "--reason", "fire\nand flood", "--out", "rewrapped", code=1)
    assert "reason: " in said.stderr


def test_a_place_that_is_none_is_refused_before(world: Ceremony) -> None:
    """What holders did would be lost with a folder that nobody made."""
    make = ("custodian", "recovery", "make", "production", "--among", "2 of (ida, cas, cyd)")
    for words in (
        (*BROKEN[:-1], "none/rewrapped"),
        (
            "custodian",
            "recovery",
            "wrapping-key",
            "recovery-1.dsse",
            "--out",
            "none/wrapping-2.dsse",
        ),
        (*make, "--yes", "--out", "none/recovery-9.dsse"),
    ):
        said = world["cas"].run(*words, code=3).stderr
        assert "no such file or directory" in said
        assert ASKED not in said


def test_a_site_that_is_none_is_refused_before(world: Ceremony) -> None:
    """So is a name that is no site's."""
    said = world["cas"].run(*BROKEN, "--site", "nowhere", code=1)
    assert "nowhere is no site of the policy" in said.stderr


def test_a_pin_is_asked_before_the_words(world: Ceremony) -> None:
    """Who does not know his PIN, or whose token is not there, has bothered nobody."""
    cas = world["cas"]
    for words in (
        BROKEN,
        ("custodian", "recovery", "wrapping-key", "recovery-1.dsse", "--out", "wrapping-2.dsse"),
    ):
        said = cas.run(*words, "--home", forgetful(cas), code=3).stderr
        assert "PIN" in said
        assert ASKED not in said


def test_a_key_that_is_there_is_refused_before(world: Ceremony) -> None:
    """A backup that the token has already is told before anybody types."""
    ida, new = world["ida"], world.token("fresh")
    world.trust(ida.uri)
    ida.run("custodian", "backup", "wrapping-1.dsse", "--authority", "--out", "ca.dsse")
    restore = ("custodian", "restore", "ca.dsse", "--record", "recovery-1.dsse", "--yes", "--token")
    assert "in the token already" in ida.run(*restore, str(ida.uri), code=1).stderr
    assert ASKED in ida.run(*restore, str(new), code=3).stderr


def test_a_drill_of_a_key_that_no_policy_names_ends_before(world: Ceremony) -> None:
    """Whatever its shares rebuild, no bundle is sealed to it."""
    ida = world["ida"]
    other = ("custodian", "recovery", "make", "production", "--among", "2 of (ida, cas, cyd)")
    sealed = [
        word for name in ("ida", "cas", "cyd") for word in ("--seal-to", f"admissions/{name}.dsse")
    ]
    made = ("--epoch", "2", "--sealed-out", "shares-2", "--out", "recovery-2.dsse", "--yes")
    ida.run(*other, *sealed, *made)
    said = ida.run("custodian", "drill", "recovery-2.dsse", code=1)
    assert "NO  drill.policy" in said.stdout
    assert "nobody was asked for words" in said.stderr


def test_a_key_that_one_lost_share_ends_is_not_made(world: Ceremony) -> None:
    """Two of two: no policy would take it, and nobody is shown a word."""
    make = ("custodian", "recovery", "make", "production", "--out", "recovery-3.dsse")
    said = world["ida"].run(*make, "--among", "2 of (ida, cas)", code=1).stderr
    assert "recovery needs ida: without him the recovery key is lost" in said
    assert "a lower threshold, or one more holder" in said
    assert "shares: " not in said


def test_an_officer_who_was_revoked_stops_it_before(world: Ceremony) -> None:
    """Nothing can be sealed while the policy has him, by a recovery or by a publisher."""
    cas, pub = world["cas"], world["pub"]
    with beside(world, "sec1"):
        # A home whose PIN nobody can type here: the PIN is not asked either.
        seal = (*SEAL, "bundle-2", "--home", forgetful(pub))
        broken, sealed = cas.run(*BROKEN, code=1), pub.run(*seal, code=1)
        drilled, told = cas.run(*DRILL, code=1), cas.run(*DRILL, "--json", code=1)
    for done in (broken, sealed):
        assert NO_KEY in done.stderr
        assert f"hint: {REVOKED}" in done.stderr
    assert "BREAKING THE GLASS" not in broken.stderr
    assert "NO  drill.bundle" in drilled.stdout
    assert f"{NO_KEY} ({REVOKED})" in drilled.stdout
    assert "drill.share" not in drilled.stdout
    assert "nobody was asked for words: mend this first" in drilled.stderr
    assert ["drill.bundle"] == [verdict["check"] for verdict in json.loads(told.stdout)]
    assert not {"rewrapped", "bundle-2"} & {path.name for path in world.folder.iterdir()}


def test_a_custodian_who_was_revoked_breaks_no_glass(world: Ceremony) -> None:
    """His signature would not count, so nobody types for him."""
    with beside(world, "cas"):
        said = world["cas"].run(*BROKEN, code=1).stderr
    assert "revoked" in said
    assert ASKED not in said
