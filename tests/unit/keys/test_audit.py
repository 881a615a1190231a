"""Weak combinations are found by name, and good keys are left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from custody.keys.audit import WEAK_MECHANISMS, HeldObject, audit

PROTECTED = ("ALWAYS_SENSITIVE", "LOCAL", "NEVER_EXTRACTABLE", "PRIVATE", "SENSITIVE")
GOOD = HeldObject(
    kind="secret",
    type="AES",
    label="kek",
    id="01",
    role="",
    flags=(*PROTECTED, "WRAP"),
    untold=(),
    mechanisms=("AES_KEY_WRAP_PAD",),
    size_bits=0,
    digest="",
    excused=(),
)


def held(**changed: Any) -> HeldObject:
    """Return the good key with changes."""
    return msgspec.structs.replace(GOOD, **changed)


def found(*objects: HeldObject) -> set[tuple[str, bool]]:
    """Return the names found, and whether they are refused."""
    return {(finding.name, finding.weak) for finding in audit(objects)}


def test_a_good_key_is_left_alone() -> None:
    """A key for wrapping alone, protected in every way, has nothing to be said of it."""
    assert set() == found(GOOD)
    assert set() == found()


@pytest.mark.parametrize(
    ("uses", "name"),
    [
        (("WRAP", "DECRYPT"), "wrap-and-decrypt"),
        (("UNWRAP", "ENCRYPT"), "unwrap-and-encrypt"),
        (("SIGN", "DECRYPT"), "sign-and-decrypt"),
        (("SIGN", "DERIVE"), "sign-and-derive"),
        (("SIGN", "UNWRAP"), "sign-and-unwrap"),
        (("UNWRAP", "DECRYPT"), "unwrap-and-decrypt"),
        (("SIGN_RECOVER", "DECRYPT"), "sign-recover-and-decrypt"),
        (("SIGN_RECOVER", "UNWRAP"), "sign-recover-and-unwrap"),
    ],
)
def test_conflicts_are_refused(uses: tuple[str, str], name: str) -> None:
    """Two uses that turn a key against others are refused; either alone is not."""
    assert (name, True) in found(held(flags=(*PROTECTED, *uses)))
    for use in uses:
        assert (name, True) not in found(held(flags=(*PROTECTED, use)))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"flags": tuple(flag for flag in PROTECTED if flag != "SENSITIVE")}, "readable"),
        ({"flags": (*PROTECTED, "EXTRACTABLE")}, "extractable-by-anyone"),
        ({"untold": ("EXTRACTABLE",)}, "extractable-by-anyone"),
        ({"flags": (*PROTECTED, "MODIFIABLE")}, "modifiable"),
        ({"untold": ("MODIFIABLE",)}, "modifiable"),
        ({"mechanisms": ()}, "any-mechanism"),
        ({"mechanisms": ("AES_KEY_WRAP_PAD", "AES_CBC_PAD")}, "weak-mechanism"),
        ({"flags": (*PROTECTED, "TRUSTED", "WRAP", "DECRYPT")}, "trusted-and-decrypt"),
        ({"kind": "private", "type": "RSA", "size_bits": 1024}, "short-key"),
    ],
)
def test_lacks_are_refused(changed: dict[str, Any], name: str) -> None:
    """What a key lacks is refused by name, and so is what the token does not tell."""
    assert (name, True) in found(held(**changed))


def test_a_trusted_way_out_is_a_way_out_for_the_trusted() -> None:
    """EXTRACTABLE with WRAP_WITH_TRUSTED is what a key with a backup looks like."""
    flags = tuple(flag for flag in PROTECTED if flag != "NEVER_EXTRACTABLE")
    assert set() == found(held(flags=(*flags, "EXTRACTABLE", "WRAP", "WRAP_WITH_TRUSTED")))


@pytest.mark.parametrize(
    ("changed", "name"), [("SENSITIVE", "readable"), ("MODIFIABLE", "modifiable")]
)
def test_the_profile_excuses_one_attribute(changed: str, name: str) -> None:
    """What the device cannot have otherwise is excused by the attribute's name, and only that."""
    bad = held(flags=("EXTRACTABLE", "MODIFIABLE"))
    assert (name, True) in found(bad)
    excused = msgspec.structs.replace(bad, excused=(changed,))
    assert {(name, True)} == found(bad) - found(excused)


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("LOCAL", "imported"),
        ("ALWAYS_SENSITIVE", "was-readable"),
        ("NEVER_EXTRACTABLE", "was-extractable"),
    ],
)
def test_a_keys_past_is_told(flag: str, name: str) -> None:
    """Where a key has been is told and not refused: a restored one has no other past."""
    flags = tuple(other for other in GOOD.flags if other != flag)
    assert {(name, False)} == found(held(flags=flags))


def test_the_two_halves_of_a_pair_are_judged_together() -> None:
    """A public key that wraps what its private half decrypts is A2, by whatever label."""
    private = held(kind="private", type="RSA", flags=(*PROTECTED, "DECRYPT"), size_bits=3072)
    public = held(kind="public", type="RSA", flags=("TRUSTED", "WRAP"), label="other")
    assert {("wrap-and-decrypt", True), ("trusted", False)} == found(private, public)
    apart = msgspec.structs.replace(public, id="02")
    assert {("trusted", False)} == found(private, apart)
    unwraps = msgspec.structs.replace(private, flags=(*PROTECTED, "UNWRAP"))
    encrypts = msgspec.structs.replace(public, flags=("ENCRYPT",))
    assert {("unwrap-and-encrypt", True)} == found(unwraps, encrypts)


@pytest.mark.parametrize(
    ("public_use", "private_use", "name"),
    [("WRAP", "DECRYPT", "wrap-and-decrypt"), ("ENCRYPT", "UNWRAP", "unwrap-and-encrypt")],
)
def test_two_halves_under_two_ids_are_still_one_key(
    public_use: str, private_use: str, name: str
) -> None:
    """Whoever writes another id beside one half hides no pair; other keys are none."""
    private = held(
        kind="private", type="RSA", flags=(*PROTECTED, private_use), size_bits=3072, digest="aa"
    )
    public = held(kind="public", type="RSA", flags=("TRUSTED", public_use), id="02", digest="aa")
    assert (name, True) in found(private, public)
    assert (name, True) not in found(private, msgspec.structs.replace(public, digest="bb"))
    silent = msgspec.structs.replace(private, digest="")
    assert (name, True) not in found(silent, msgspec.structs.replace(public, digest=""))


def test_one_private_key_as_two_objects_has_the_uses_of_both() -> None:
    """A key that decrypts in one object and unwraps in another is found, in each."""
    one = held(
        kind="private", type="RSA", flags=(*PROTECTED, "DECRYPT"), size_bits=3072, digest="aa"
    )
    other = msgspec.structs.replace(one, id="02", label="b", flags=(*PROTECTED, "UNWRAP"))
    assert {("unwrap-and-decrypt", True)} == found(one, other)
    assert 2 == len(audit((one, other)))
    assert set() == found(one, msgspec.structs.replace(other, digest="bb"))
    assert set() == found(one, msgspec.structs.replace(one, id="02", label="b"))


def test_what_a_device_makes_so_is_told_and_not_refused() -> None:
    """Where the profile excuses one of two uses and one mechanism is allowed, that one holds."""
    key = held(
        kind="private",
        type="RSA",
        size_bits=3072,
        flags=(*PROTECTED, "DECRYPT", "UNWRAP"),
        mechanisms=("RSA_PKCS_OAEP",),
        excused=("UNWRAP",),
    )
    assert {("unwrap-and-decrypt", False)} == found(key)
    assert {("unwrap-and-decrypt", True)} == found(msgspec.structs.replace(key, excused=()))


def test_a_rival_public_key_is_a_decoy() -> None:
    """Two public keys under one id are a decoy; a copy of the same one is none."""
    public = held(kind="public", type="EC", flags=("VERIFY",), digest="aa")
    assert set() == found(public, public)
    assert ("decoy", True) in found(public, msgspec.structs.replace(public, digest="bb"))


def test_two_keys_of_one_label_are_told() -> None:
    """Whoever names keys by label is warned."""
    assert {("one-label", False)} == found(GOOD, held(id="02"))


def test_banned_mechanisms_are_named_as_the_token_names_them() -> None:
    """Every banned name is one of the binding's, so that none is banned in vain."""
    from pkcs11 import Mechanism

    known = {name.lstrip("_") for name in Mechanism.__members__}
    assert set() == WEAK_MECHANISMS - known
