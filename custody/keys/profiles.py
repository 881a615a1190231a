"""Device profiles: where a token's library lies, and its named departures from the templates.

A profile is data (``hsm_profiles/NAME.toml``).  It can excuse a difference the device makes to an
attribute we asked for, by name and with its source; it can switch no check off.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

import custody
from custody.errors import Malformed, Unavailable

AttributeName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z0-9_]{1,40}\Z")]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
#: Where a claim is from: measured on a version that is named, read in a document whose address is
#: (and what of it, after a comma or in parentheses), or from hearsay.
Source = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(probed on [A-Za-z][^\n0-9]{0,80}[0-9][^\n]{0,100}"
        r"|from the (manual|source): [a-z0-9-]+(\.[a-z0-9-]+)+/[A-Za-z0-9./_-]{1,100}"
        r"((, | \()[^\n]{2,100})?"
        r"|unverified)\Z"
    ),
]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table of which every key is known."""


class Library(_Table, frozen=True, kw_only=True):
    """One place where the PKCS#11 library may lie; a profile's are tried in order."""

    system: Literal["linux", "darwin", "win32"]
    path: Words
    source: Source


class Match(_Table, frozen=True, kw_only=True):
    """How a token says it is of this kind (CK_TOKEN_INFO)."""

    manufacturer: Words
    model: Words
    source: Source


class InFront(_Table, frozen=True, kw_only=True):
    """How a library says what it is (CK_INFO), where its tokens say what the chip behind it is."""

    manufacturer: Words
    description: Words
    source: Source


class Setting(_Table, frozen=True, kw_only=True):
    """An environment variable that the library reads, set for it where the user has not set it."""

    variable: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z0-9_]{1,60}\Z")]
    value: Words
    source: Source


class Store(_Table, frozen=True, kw_only=True):
    """Files that the library makes in the working directory where it finds none of its own."""

    variable: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z0-9_]{1,60}\Z")]
    """Names the directory instead of ``places``."""
    file: Words
    places: tuple[Words, ...]
    """Directories; ``~`` is the user's home."""
    source: Source


class Quirk(_Table, frozen=True, kw_only=True):
    """One difference between the attribute we write and what the device then reads back."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{3,60}\Z")]
    object: Literal["private", "public"]
    attribute: AttributeName
    reads: bool | Literal["missing", "empty"]
    insists: bool = False
    """The device refuses to be asked for anything else, so it is asked for what it will read."""
    why: Words
    source: Source


class Fact(_Table, frozen=True, kw_only=True):
    """Something to know about the device that no template shows."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{3,60}\Z")]
    says: Words
    source: Source


class Behaviour(_Table, frozen=True, kw_only=True):
    """What one measure of `custody token probe` answers on this kind of token."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9.-]{2,60}\Z")]
    answer: Literal["yes", "no"]
    source: Source


class Profile(_Table, frozen=True, kw_only=True):
    """One kind of token."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,30}\Z")]
    title: Words
    match: tuple[Match, ...] = ()
    """Where this and ``in_front`` are empty nobody has seen one: its quirks excuse nothing."""
    in_front: tuple[InFront, ...] = ()
    library: tuple[Library, ...] = ()
    setting: tuple[Setting, ...] = ()
    store: Store | None = None
    mechanisms: tuple[AttributeName, ...]
    """What the device must offer for our roles; more may be there."""
    mechanisms_source: Source
    token_class: Literal["self-asserted", "software"] = "self-asserted"  # noqa: S105  a class
    """What a key in it can be called: a device may be what it says, and software is none."""
    ecdh_point: Literal["raw", "der"] = "raw"
    """How C_DeriveKey wants the other's point: bytes, or in a DER OCTET STRING."""
    one_key_per_login: bool = False
    """It has room for few keys at a time and lets go of them at logout: each use logs in anew."""
    quirk: tuple[Quirk, ...] = ()
    fact: tuple[Fact, ...] = ()
    behaviour: tuple[Behaviour, ...] = ()


#: A token that no profile describes: every difference is refused.
UNKNOWN = Profile(
    name="unknown",
    title="a token without a profile",
    mechanisms=("EC_KEY_PAIR_GEN", "ECDSA", "ECDH1_DERIVE"),
    mechanisms_source="unverified",
)


def data_directory(name: str) -> Path:
    """Find a directory of packaged data: in the wheel (``custody/_data``), else in the checkout."""
    package = Path(custody.__file__).resolve().parent
    for place in (package / "_data" / name, package.parent / name):
        if place.is_dir():
            return place
    raise Unavailable(f"this installation has no {name} directory")


def parse_profile(data: bytes, *, where: str) -> Profile:
    """Read one profile; unknown keys, wrong types and a repeated quirk are `Malformed`."""
    try:
        profile = msgspec.toml.decode(data, type=Profile)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"not a device profile: {error}", where=where) from error
    ids = [quirk.id for quirk in profile.quirk] + [fact.id for fact in profile.fact]
    answers = [behaviour.id for behaviour in profile.behaviour]
    if len(set(ids)) != len(ids) or len(set(answers)) != len(answers):
        raise Malformed("a quirk, fact or behaviour id appears twice", where=where)
    return profile


@cache
def load_profiles() -> tuple[Profile, ...]:
    """Read every shipped profile, by name."""
    paths = sorted(data_directory("hsm_profiles").glob("*.toml"))
    return tuple(parse_profile(path.read_bytes(), where=path.name) for path in paths)


def profile_named(name: str) -> Profile:
    """Return the profile with this name (a key URI's ``module-name``)."""
    for profile in load_profiles():
        if profile.name == name:
            return profile
    known = ", ".join(profile.name for profile in load_profiles())
    raise Unavailable(f"no device profile is named {name!r}", hint=f"profiles: {known}")


def profile_of(manufacturer: str, model: str) -> Profile:
    """Return the profile a token's own description matches, or `UNKNOWN`."""
    for profile in load_profiles():
        if any(item.manufacturer == manufacturer and item.model == model for item in profile.match):
            return profile
    return UNKNOWN


def profile_behind(
    manufacturer: str, model: str, *, library: str, library_manufacturer: str
) -> Profile:
    """Return the profile of a token, else of the library in front of it, or `UNKNOWN`.

    A library in front of a chip may pass on what the chip says; its own name then says more.
    """
    found = profile_of(manufacturer, model)
    if found is not UNKNOWN:
        return found
    for profile in load_profiles():
        for item in profile.in_front:
            if (item.manufacturer, item.description) == (library_manufacturer, library):
                return profile
    return UNKNOWN


def keeps_nothing(profile: Profile) -> bool:
    """Say whether a library that keeps tokens in files has none: asked, it would begin some."""
    store = profile.store
    if store is None or store.variable in os.environ:
        return False
    places = [*(Path(place).expanduser() for place in store.places), Path()]
    return not any((place / store.file).exists() for place in places)


def library_paths(profile: Profile) -> tuple[Path, ...]:
    """List where this operating system may have the profile's library."""
    return tuple(Path(item.path) for item in profile.library if item.system == sys.platform)
