from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto import shamir
from custody.crypto.secret import Random
from custody.errors import Refused
from tests.unit.crypto.vectors import Vector, each

BYTE = st.integers(0, 255)


def replay(*drawn: bytes) -> Random:
    """Return a random source that gives out ``drawn`` in order, checking the sizes asked for."""
    left = iter(drawn)

    def draw(size: int) -> bytes:
        value = next(left)
        assert size == len(value)
        return value

    return draw


def product_by_hand(a: int, b: int) -> int:
    """Multiply as school does, then divide by the field's polynomial."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


@each("shamir/field.txt", "a", "b", "product")
def test_field_products(vector: Vector) -> None:
    """The field is AES's, both ways round."""
    a, b = int(vector["a"], 16), int(vector["b"], 16)
    assert int(vector["product"], 16) == shamir.multiply(a, b, 1)
    assert int(vector["product"], 16) == shamir.multiply(b, a, 1)


def test_every_product() -> None:
    """All 65,536 products agree with polynomial division, 256 lanes at a time."""
    lanes = bytes(range(256))
    for factor in range(256):
        got = shamir.multiply(int.from_bytes(lanes, "big"), factor, 256).to_bytes(256, "big")
        assert bytes(product_by_hand(lane, factor) for lane in lanes) == got


def test_every_inverse() -> None:
    """Every non-zero element times its inverse is one."""
    for element in range(1, 256):
        assert 1 == product_by_hand(element, shamir._inverse(element))


@each("shamir/shares.txt", "secret", "k", "coefficients", "shares")
def test_known_shares(vector: Vector) -> None:
    """Known coefficients give the known shares, and any k of them the secret."""
    secret, k = bytes.fromhex(vector["secret"]), int(vector["k"])
    shares = [bytes.fromhex(share) for share in vector["shares"].split()]
    drawn = [bytes.fromhex(value) for value in vector["coefficients"].split()]
    assert shares == list(map(bytes, shamir.split(secret, k, len(shares), replay(*drawn))))
    points = list(enumerate(shares, 1))
    for chosen in itertools.islice(itertools.combinations(points, k), 64):
        assert secret == shamir.combine(chosen)


@settings(deadline=None)
@given(
    secret=st.binary(min_size=1, max_size=64),
    n=st.integers(2, 32),
    data=st.data(),
)
def test_any_k_of_n(secret: bytes, n: int, data: st.DataObject) -> None:
    """Any k shares, in any order, give the secret back."""
    k = data.draw(st.integers(2, n))
    points = list(enumerate(shamir.split(secret, k, n), 1))
    chosen = data.draw(st.permutations(points))[:k]
    assert secret == shamir.combine(chosen)


@pytest.mark.parametrize("x", [1, 2, 37, 255])
def test_one_share_of_two_tells_nothing(x: int) -> None:
    """With k = 2, over every coefficient each secret byte gives each share value exactly once.

    So whatever value a holder sees, each of the 256 secrets explains it by exactly one polynomial.
    """
    for secret in range(256):
        seen = {shamir._evaluate([secret, top], x, 1)[0] for top in range(256)}
        assert set(range(256)) == seen


@settings(deadline=None)
@given(
    a=BYTE,
    b=BYTE,
    secret=BYTE,
    xs=st.lists(st.integers(1, 255), min_size=3, max_size=3, unique=True),
)
def test_two_shares_of_three_fit_every_secret(a: int, b: int, secret: int, xs: list[int]) -> None:
    """With k = 3, any two shares lie on one polynomial with any secret whatever.

    That polynomial's third share is the one that makes the three combine to it, so counting
    polynomials, no secret is more likely than another.
    """
    fitting = [
        third
        for third in range(256)
        if shamir.combine([(xs[0], bytes([a])), (xs[1], bytes([b])), (xs[2], bytes([third]))])
        == bytes([secret])
    ]
    assert 1 == len(fitting)


def test_the_top_coefficient_may_be_zero() -> None:
    """Every top coefficient is drawn from all 256 values: none is drawn again."""
    asked: list[int] = []

    def zeros(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    assert [b"ab"] * 4 == [bytes(share) for share in shamir.split(b"ab", 3, 4, zeros)]
    assert [2, 2] == asked


@given(secret=st.binary(min_size=8, max_size=32), k=st.integers(3, 8))
def test_fewer_shares_give_something_else(secret: bytes, k: int) -> None:
    """Only k - 1 shares interpolate to a value that a fresh top coefficient moves."""
    drawn = [os.urandom(len(secret)) for _ in range(k - 2)]
    results = set()
    for top in (b"\x01", b"\x02", b"\x03"):
        source = replay(*drawn, top * len(secret))
        points = list(enumerate(shamir.split(secret, k, k, source), 1))[: k - 1]
        results.add(bytes(shamir.combine(points)))
    assert secret not in results
    assert 3 == len(results)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, b"a")],
        [(1, b"a"), (1, b"a")],
        [(1, b"a"), (1, b"b")],
        [(0, b"a"), (1, b"b")],
        [(1, b"a"), (256, b"b")],
        [(-1, b"a"), (1, b"b")],
        [(1, b"a"), (2, b"bb")],
        [(1, b""), (2, b"")],
        [(x % 255 + 1, b"a") for x in range(256)],
    ],
)
def test_bad_points_are_refused(points: list[tuple[int, bytes]]) -> None:
    """Repeated, zero or too large x, unequal or empty shares and wrong counts are refused."""
    with pytest.raises(Refused) as caught:
        shamir.combine(points)
    assert "shamir.points" == caught.value.check


@pytest.mark.parametrize(("k", "n"), [(0, 2), (1, 2), (3, 2), (2, 256), (-1, 1)])
def test_bad_counts(k: int, n: int) -> None:
    """A split has 2 <= k <= n <= 255."""
    with pytest.raises(ValueError, match="2 <= k <= n <= 255"):
        shamir.split(b"secret", k, n)


def test_bad_sources() -> None:
    """A random source that runs dry and an empty secret are errors, not weak shares."""
    with pytest.raises(ValueError, match="wrong number"):
        shamir.split(b"secret", 2, 3, lambda size: bytes(size - 1))
    with pytest.raises(ValueError, match="no secret"):
        shamir.split(b"", 2, 3)
