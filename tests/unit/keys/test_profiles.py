from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import custody
from custody.errors import Malformed, Unavailable
from custody.keys.probe import MEASURES
from custody.keys.profiles import (
    UNKNOWN,
    Profile,
    data_directory,
    library_paths,
    load_profiles,
    parse_profile,
    profile_named,
    profile_of,
)

GOOD = b"""
name = "tok"
title = "A token"
mechanisms = ["ECDSA"]
mechanisms_source = "unverified"
[[match]]
manufacturer = "Tok Inc"
model = "T1"
source = "from the source: example.com/tok"
[[library]]
system = "linux"
path = "/usr/lib/libtok.so"
source = "probed on Tok 1 (Debian 12)"
[[behaviour]]
id = "ecdh.raw"
answer = "no"
source = "unverified"
[[quirk]]
id = "stays-modifiable"
object = "private"
attribute = "MODIFIABLE"
reads = true
why = "the firmware ignores it"
source = "from the manual: example.com/tok, section 3"
"""


#: Kinds of tokens that a person can be expected to own.
KINDS = {
    "cloudhsm",
    "kmsp11",
    "kryoptic",
    "luna",
    "nethsm",
    "nshield",
    "opencryptoki",
    "opensc",
    "softhsm2",
    "tpm2-pkcs11",
    "ykcs11",
    "yubihsm2",
}


def test_shipped_profiles_are_read() -> None:
    """Every shipped profile is valid, named like its file, and there is one for each kind."""
    names = {path.stem for path in data_directory("hsm_profiles").glob("*.toml")}
    assert names == {profile.name for profile in load_profiles()} == KINDS


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_every_claim_has_a_source(profile: Profile) -> None:
    """Each says where it is from; only what could be installed is called probed."""
    claims = [profile.mechanisms_source] + [
        item.source
        for items in (
            profile.match,
            profile.library,
            profile.quirk,
            profile.fact,
            profile.behaviour,
        )
        for item in items
    ]
    probed = {claim for claim in claims if claim.startswith("probed on ")}
    assert not probed or profile.name in {"opencryptoki", "softhsm2", "tpm2-pkcs11"}
    assert all(len(re.findall(r"[a-z]\.[a-z]", claim)) for claim in claims if "from the" in claim)


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_every_behaviour_is_a_measure(profile: Profile) -> None:
    """What a profile expects is something that the probe measures, said once."""
    ids = [behaviour.id for behaviour in profile.behaviour]
    assert set() == set(ids) - MEASURES.keys()
    assert len(set(ids)) == len(ids)


def test_a_profile_that_was_never_matched_excuses_nothing() -> None:
    """A quirk wants a token that was seen: nobody's say-so loosens a template."""
    assert [] == [p.name for p in load_profiles() if p.quirk and not (p.match or p.in_front)]


def test_profile_by_name_and_by_token() -> None:
    """A profile is found by a URI's module-name and by what a token says it is."""
    assert "softhsm2" == profile_named("softhsm2").name
    assert "softhsm2" == profile_of("SoftHSM project", "SoftHSM v2").name
    assert UNKNOWN is profile_of("SoftHSM project", "SoftHSM v9")
    with pytest.raises(Unavailable, match="no device profile"):
        profile_named("nosuch")


def test_unknown_token_has_no_excuses() -> None:
    """A token that no profile describes is excused nothing."""
    assert () == UNKNOWN.quirk


def test_good_profile() -> None:
    """The example reads, quirk and all."""
    profile = parse_profile(GOOD, where="tok.toml")
    assert ("MODIFIABLE", True) == (profile.quirk[0].attribute, profile.quirk[0].reads)


@pytest.mark.parametrize(
    "change",
    [
        (b'title = "A token"', b'title = "A token"\ncolour = "red"'),
        (b'object = "private"', b'object = "secret"'),
        (b'source = "from the manual: example.com/tok, section 3"', b""),
        (b'source = "from the manual: example.com/tok, section 3"', b'source = ""'),
        (b'source = "from the manual: example.com/tok, section 3"', b'source = "from the manual"'),
        (b'source = "unverified"', b'source = "I think so"'),
        (b'source = "unverified"', b'source = "unverified "'),
        (b'source = "probed on Tok 1 (Debian 12)"', b'source = "probed on"'),
        (b'mechanisms_source = "unverified"', b""),
        (b'system = "linux"', b'system = "plan9"'),
        (b'answer = "no"', b'answer = "untested"'),
        (
            b"[[quirk]]",
            b'[[behaviour]]\nid = "ecdh.raw"\nanswer = "yes"\nsource = "unverified"\n[[quirk]]',
        ),
        (b"reads = true", b"reads = 1"),
        (b'name = "tok"', b'name = "../tok"'),
        (b'name = "tok"', b"name = "),
        (
            b"[[quirk]]",
            b'[[fact]]\nid = "stays-modifiable"\nsays = "x"\nsource = "unverified"\n[[quirk]]',
        ),
        (b"A token", b"\xff"),
    ],
)
def test_bad_profiles(change: tuple[bytes, bytes]) -> None:
    """An unknown key, a missing source, a wrong type or a repeated id is malformed, file named."""
    with pytest.raises(Malformed) as caught:
        parse_profile(GOOD.replace(*change), where="tok.toml")
    assert "tok.toml" == caught.value.where


@given(st.binary(max_size=300))
def test_bytes_are_a_profile_or_malformed(data: bytes) -> None:
    """Whatever the bytes, the answer is a profile or `Malformed`."""
    with suppress(Malformed):
        assert parse_profile(data, where="tok.toml").name


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_a_profile_or_malformed(at: int, byte: int) -> None:
    """The same of a profile with one byte changed: no claim is read without a source."""
    with suppress(Malformed):
        profile = parse_profile(GOOD[:at] + bytes([byte]) + GOOD[at + 1 :], where="tok.toml")
        sources = [item.source for item in profile.match] + [item.source for item in profile.quirk]
        assert all(sources)


def test_wheel_data_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data packaged in the wheel is found before a directory that happens to lie beside it."""
    package = tmp_path / "custody"
    beside = tmp_path / "hsm_profiles"
    packaged = package / "_data" / "hsm_profiles"
    beside.mkdir()
    package.mkdir()
    monkeypatch.setattr(custody, "__file__", str(package / "__init__.py"))
    assert beside == data_directory("hsm_profiles")
    packaged.mkdir(parents=True)
    assert packaged == data_directory("hsm_profiles")
    with pytest.raises(Unavailable):
        data_directory("softhsm")


def test_library_paths_follow_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search list is the one of the operating system the program runs on."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert all("/lib/softhsm/" in str(path) for path in library_paths(profile_named("softhsm2")))
    monkeypatch.setattr("sys.platform", "plan9")
    assert () == library_paths(profile_named("softhsm2"))
