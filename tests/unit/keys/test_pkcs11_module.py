from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute

from custody.errors import Malformed, Refused, Unavailable
from custody.keys.api import KeyRole
from custody.keys.pkcs11_module import load_module
from custody.keys.pkcs11_templates import (
    PARAMETERS,
    mapper,
    private_template,
    public_key_of,
    public_template,
)
from custody.keys.uri import Pkcs11Uri
from tests.sim.token import Device, Item


def library(directory: Path) -> Pkcs11Uri:
    """Write a file that is no token library and name it."""
    path = directory / "libtoken.so"
    path.write_bytes(b"not an ELF file")
    path.chmod(0o755)
    return Pkcs11Uri(module_path=str(path))


def test_library_others_can_replace_is_refused(tmp_path: Path) -> None:
    """A token library is given the PIN: one that any user can replace is not loaded."""
    inner = tmp_path / "inner"
    inner.mkdir(mode=0o755)
    uri = library(inner)
    for place in (inner / "libtoken.so", inner, tmp_path):
        before = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(Refused) as caught:
            load_module(uri)
        assert ("module.path", str(place)) == (caught.value.check, caught.value.where)
        place.chmod(before)
    inner.chmod(0o1777)
    with pytest.raises(Refused):
        load_module(uri)


def test_symbolic_link_to_a_shared_place_is_refused(tmp_path: Path) -> None:
    """It is the library's real place that counts, not the link's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    uri = library(shared)
    shared.chmod(0o777)
    link = tmp_path / "link.so"
    link.symlink_to(str(uri.module_path))
    with pytest.raises(Refused):
        load_module(Pkcs11Uri(module_path=str(link)))


def test_file_that_is_no_library(tmp_path: Path) -> None:
    """A file that cannot be loaded is unavailable, and named."""
    uri = library(tmp_path)
    with pytest.raises(Unavailable) as caught:
        load_module(uri)
    assert uri.module_path == caught.value.where


def test_no_library() -> None:
    """A missing library, an unnamed one and an unknown profile are unavailable, with a hint."""
    for uri in (
        Pkcs11Uri(module_path="/nonexistent/lib.so"),
        Pkcs11Uri(),
        Pkcs11Uri(module_name="x"),
    ):
        with pytest.raises(Unavailable) as caught:
            load_module(uri)
        assert caught.value.hint is not None


@pytest.mark.parametrize("role", KeyRole)
def test_templates_leave_nothing_to_the_token(role: KeyRole) -> None:
    """Every usage is written out, exactly one is true, and MODIFIABLE comes last and is false."""
    private = private_template(role, label="x", id=b"x")
    uses = ("SIGN", "SIGN_RECOVER", "DECRYPT", "UNWRAP", "DERIVE")
    assert ["DERIVE" if role.derives else "SIGN"] == [
        use for use in uses if private[Attribute[use]]
    ]
    assert 1 == len(private[Attribute.ALLOWED_MECHANISMS])
    public = public_template(role, label="x", id=b"x", curve=ec.SECP256R1())
    for template in (private, public):
        assert (Attribute.MODIFIABLE, False) == list(template.items())[-1]
        assert template[Attribute.TOKEN]
        assert not template[Attribute.COPYABLE]


def test_allowed_mechanisms_round_trip() -> None:
    """The attribute the binding does not know is packed as CK_ULONGs and read back."""
    known = mapper()
    packed = known.pack_attribute(Attribute.ALLOWED_MECHANISMS, (0x1041, 0x1050))
    assert (0x1041, 0x1050) == known.unpack_attributes(Attribute.ALLOWED_MECHANISMS, packed)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_public_key_object(curve: ec.EllipticCurve) -> None:
    """A public key object reads as its key; any other length, point or curve is malformed."""
    key = ec.generate_private_key(curve).public_key()
    numbers = key.public_numbers()
    size = (curve.key_size + 7) // 8
    point = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    head = bytes([4, len(point)]) if len(point) < 128 else bytes([4, 0x81, len(point)])
    params = PARAMETERS[curve.name]

    def item(params: bytes, raw: bytes) -> Any:
        return Item(Device(), {Attribute.EC_PARAMS: params, Attribute.EC_POINT: raw}, None)

    assert numbers == public_key_of(item(params, head + point)).public_numbers()
    off_curve = point[:-1] + bytes([point[-1] ^ 1])
    infinity = b"\x04" + bytes(2 * size)
    compressed = bytes([2 + numbers.y % 2]) + point[1 : 1 + size]
    for bad in (point, head + point + b"\0", head + off_curve, head + infinity, compressed, b""):
        with pytest.raises(Malformed):
            public_key_of(item(params, bad))
    with pytest.raises(Malformed):
        public_key_of(item(bytes.fromhex("06052b8104000a"), head + point))
