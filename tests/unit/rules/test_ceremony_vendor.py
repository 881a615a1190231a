"""What a script lets a vendor attest: required, accepted, or not asked for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from custody.encoding import sha256
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Admit, Enrol, Vouching, admission_name
from custody.formats.envelope import decode_statement
from custody.rules.ceremony_vendor import vouched, vouching
from tests.unit.people import NOW
from tests.unit.rules import ceremony_whole as table
from tests.unit.yubikey import YubiKey

WHO = table.VOUCHED


def admission(**changes: Any) -> Admission:
    """The admission whose keys a YubiKey attests, or another one."""
    name = admission_name(WHO)
    said = decode_statement(Admission, table.whole().contents[name]).predicate
    return replace(said, **changes)


def step(attestation: Vouching | None, *roots: str) -> Enrol:
    """A step that asks for that."""
    return Enrol(who=WHO, attestation=attestation, roots=roots or table.ROOTS)


@pytest.mark.parametrize("attestation", ["required", "accepted"])
def test_what_a_vendor_attests_is_told(attestation: Vouching) -> None:
    """Slot, serial number and root of both keys, in one order."""
    keys = vouched(step(attestation), admission(), now=NOW)
    assert {("9c", 13078782), ("9d", 13078782)} == {(key.slot, key.serial) for key in keys}
    assert set(table.ROOTS) == {key.root for key in keys}
    assert keys == vouched(step(attestation), admission(), now=NOW)


def test_what_may_be_attested_need_not_be() -> None:
    """Nothing is said of it, but what is required is missed."""
    bare = admission(attestation=())
    assert () == vouched(step("accepted"), bare, now=NOW)
    with pytest.raises(Refused, match="and the script requires one") as caught:
        vouched(step("required"), bare, now=NOW)
    assert "admission.attestation" == caught.value.check


def test_one_attested_key_is_enough_only_where_none_has_to_be() -> None:
    """A share key outside the token is told from the one within it."""
    some = tuple(der for der in table.attestation() if b"Attestation 9d" not in der)
    (key,) = vouched(step("accepted"), admission(attestation=some), now=NOW)
    assert "9c" == key.slot
    with pytest.raises(Refused, match="none attests"):
        vouched(step("required"), admission(attestation=some), now=NOW)


@pytest.mark.parametrize("attestation", ["required", "accepted"])
def test_a_root_that_the_script_does_not_name_attests_nothing(attestation: Vouching) -> None:
    """Mallory's, whole and alike, and the vendor's f9 without its root, also where none has to."""
    mallory = YubiKey()
    for brought in (
        table.attestation(mallory),
        tuple(der for der in table.attestation() if der != table.YUBIKEY.root),
    ):
        with pytest.raises(Refused, match="brings none of the roots"):
            vouched(step(attestation), admission(attestation=brought), now=NOW)
    # The root that is named, laid beside a path to another one.
    both = tuple(sorted((*table.attestation(mallory), table.YUBIKEY.root)))
    with pytest.raises(Refused, match="no path leads to a root"):
        vouched(step(attestation), admission(attestation=both), now=NOW)


def test_a_script_that_asks_for_nothing_has_nothing_verified() -> None:
    """Certificates that are brought all the same, of anybody, are no word of a vendor's."""
    bare = Enrol(who=WHO)
    assert () == vouched(bare, admission(), now=NOW)
    assert () == vouched(bare, admission(attestation=table.attestation(YubiKey())), now=NOW)


def test_one_of_several_roots_is_enough() -> None:
    """A vendor with an old root and a new one; the record says which it was."""
    other = sha256(YubiKey().root).hex()
    keys = vouched(step("required", other, *table.ROOTS), admission(), now=NOW)
    assert set(table.ROOTS) == {key.root for key in keys}


def test_what_is_brought_is_judged_by_the_step_that_admits_it() -> None:
    """And who enrolled at the table by his own step."""
    admits = Admit(by="ida", who=(WHO,), files=("bob.dsse",))
    script = table.script()
    enrol = next(s for s in script.steps if isinstance(s, Enrol) and s.who == WHO)
    assert enrol == vouching(script, admits, admission_name(WHO))
    assert admits == vouching(script, admits, "bob.dsse")
