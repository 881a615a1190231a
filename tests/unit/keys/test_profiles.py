from __future__ import annotations

from pathlib import Path

import pytest

import custody
from custody.errors import Malformed, Unavailable
from custody.keys.profiles import (
    UNKNOWN,
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
[[match]]
manufacturer = "Tok Inc"
model = "T1"
[libraries]
linux = ["/usr/lib/libtok.so"]
[[quirk]]
id = "stays-modifiable"
object = "private"
attribute = "MODIFIABLE"
reads = true
why = "the firmware ignores it"
source = "from the manual"
"""


def test_shipped_profiles_are_read_and_sourced() -> None:
    """Every shipped profile is valid, named like its file, and each claim says where it is from."""
    names = {path.stem for path in data_directory("hsm_profiles").glob("*.toml")}
    assert names == {profile.name for profile in load_profiles()}
    assert "softhsm2" in names
    for profile in load_profiles():
        for source in [quirk.source for quirk in profile.quirk] + [
            fact.source for fact in profile.fact
        ]:
            assert source.startswith(("probed on ", "from the "))


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
        (b'source = "from the manual"', b""),
        (b'source = "from the manual"', b'source = ""'),
        (b"reads = true", b"reads = 1"),
        (b'name = "tok"', b'name = "../tok"'),
        (b'name = "tok"', b"name = "),
        (b"[[quirk]]", b'[[fact]]\nid = "stays-modifiable"\nsays = "x"\nsource = "x"\n[[quirk]]'),
        (b"A token", b"\xff"),
    ],
)
def test_bad_profiles(change: tuple[bytes, bytes]) -> None:
    """An unknown key, a missing source, a wrong type or a repeated id is malformed, file named."""
    with pytest.raises(Malformed) as caught:
        parse_profile(GOOD.replace(*change), where="tok.toml")
    assert "tok.toml" == caught.value.where


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
