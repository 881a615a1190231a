from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
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


_TOKENS = {
    "opencryptoki": "opencryptoki 3.8.1, soft token (Debian 12)",
    "softhsm2": "SoftHSM 2.6.1 (Debian 12)",
    "tpm2-pkcs11": "tpm2-pkcs11 1.9.0 (Debian 12) with swtpm 0.7.1",
}
_DOCUMENTS = {
    "cloudhsm": "from the manual: docs.aws.amazon.com/cloudhsm",
    "kmsp11": "from the source: github.com/GoogleCloudPlatform/kms-integrations",
    "kryoptic": "from the source: github.com/latchset/kryoptic",
    "nethsm": "from the source: github.com/Nitrokey/nethsm-pkcs11",
    "opencryptoki": "from the source: github.com/opencryptoki/opencryptoki",
    "opensc": "from the source: github.com/OpenSC/OpenSC",
    "softhsm2": "from the source: github.com/softhsm/SoftHSMv2",
    "tpm2-pkcs11": "from the source: github.com/tpm2-software/tpm2-pkcs11",
    "ykcs11": "from the source: github.com/Yubico/yubico-piv-tool",
    "yubihsm2": "from the source: github.com/Yubico/yubihsm-shell",
}


def claims(table: msgspec.Struct) -> Iterator[str]:
    """List where each row of a profile says that it is from, whatever kind of row it is."""
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if name.endswith("source"):
            yield value
        for row in value if isinstance(value, tuple) else (value,):
            if isinstance(row, msgspec.Struct):
                yield from claims(row)


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_every_claim_has_a_source(profile: Profile) -> None:
    """Each is measured on the token that was at hand, read in the kind's one document, or hearsay.

    Both are listed above: another version or another document is a change that somebody reads.
    """
    found = set(claims(profile))
    text = (data_directory("hsm_profiles") / f"{profile.name}.toml").read_text()
    assert len(re.findall(r"(?m)^(mechanisms_)?source = ", text)) == len(list(claims(profile)))
    probed = {claim for claim in found if claim.startswith("probed on ")}
    assert {f"probed on {_TOKENS[name]}" for name in (profile.name,) if name in _TOKENS} == probed
    read = {re.split(r", | \(", claim)[0] for claim in found - probed - {"unverified"}}
    assert {_DOCUMENTS[name] for name in (profile.name,) if name in _DOCUMENTS} == read


def test_what_nobody_named_a_document_for_is_unverified() -> None:
    """Kinds without one, and without a token at hand, claim nothing that was seen or read."""
    hearsay = KINDS - _TOKENS.keys() - _DOCUMENTS.keys()
    assert {"luna", "nshield"} == hearsay
    for name in hearsay:
        assert {"unverified"} == set(claims(profile_named(name)))


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
        (b'source = "probed on Tok 1 (Debian 12)"', b'source = "probed on a token of mine"'),
        (b'source = "from the source: example.com/tok"', b'source = "from the source: Tok Inc"'),
        (
            b'source = "from the source: example.com/tok"',
            b'source = "from the source: example.com"',
        ),
        (b"from the manual: example.com/tok, section 3", b"from the manual: section 3"),
        (b"from the manual: example.com/tok, section 3", b"from the forum: example.com/tok"),
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
