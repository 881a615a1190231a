"""A site's half of what a content key is under."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.keyslots import recipient_id, seal, slot_info, unwrap, wrap
from custody.crypto.signature import public_bytes
from custody.errors import Refused
from custody.formats.manifest import KeySlot
from custody.ops.keys import ShareOpener
from custody.ops.site_half import SITE_SECRET_BYTES, open_half
from tests.unit.crypto.vectors import Vector, each

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = public_bytes(KEY.public_key())
FIELDS = (
    "expect",
    "suite",
    "private",
    "core",
    "recipient",
    "slot",
    "release",
    "salt",
    "wrapped",
    "cek",
)


def content_key(vector: Vector) -> bytes:
    """Open the half with the site's key, and the content key with both."""
    raw = {name: bytes.fromhex(vector[name]) for name in FIELDS[2:]}
    curve = ec.SECP256R1() if vector["suite"] == "P256" else ec.SECP384R1()
    key = ec.derive_private_key(int.from_bytes(raw["private"], "big"), curve)
    slot = KeySlot(
        purpose="site",
        leaf="",
        recipient=vector["recipient"],
        suite=vector["suite"],  # type: ignore[arg-type]
        sealed=raw["slot"],
    )
    half = open_half(slot, ShareOpener(key), raw["core"])
    both = raw["release"] + half
    return unwrap(both, raw["salt"], raw["wrapped"], C=raw["core"], purpose="cek")


@each("keyslots/site.txt", *FIELDS)
def test_known_halves(vector: Vector) -> None:
    """The content key comes out of R and K_site, in that order, and of nothing else."""
    if vector["expect"] == "good":
        assert bytes.fromhex(vector["cek"]) == content_key(vector)
        return
    with pytest.raises(Refused) as caught:
        content_key(vector)
    assert vector["expect"] == caught.value.check


@given(half=st.binary(max_size=80))
def test_a_half_has_one_length(half: bytes) -> None:
    """Whatever is sealed to a site, 32 bytes come out, or a refusal: R ends in one place."""
    recipient = recipient_id(SPKI)
    info = slot_info(bytes(32), "site", "", recipient)
    sealed = seal("P256", SPKI, None, half, info=info)
    slot = KeySlot(purpose="site", leaf="", recipient=recipient, suite="P256", sealed=sealed)
    if len(half) == SITE_SECRET_BYTES:
        assert half == open_half(slot, ShareOpener(KEY), bytes(32))
        return
    with pytest.raises(Refused) as caught:
        open_half(slot, ShareOpener(KEY), bytes(32))
    assert "site.half" == caught.value.check


@given(release=st.binary(min_size=32, max_size=32), half=st.binary(min_size=32, max_size=32))
def test_each_half_is_needed(release: bytes, half: bytes) -> None:
    """What is wrapped under both opens under neither alone, nor padded with zeros."""
    salt, sealed = wrap(release + half, bytes(32), C=bytes(32), purpose="cek")
    zeros = bytes(32)
    for alone in (release, half, release + zeros, zeros + half):
        if alone == release + half:
            continue
        with pytest.raises(Refused):
            unwrap(alone, salt, sealed, C=bytes(32), purpose="cek")
