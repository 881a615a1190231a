"""Shamir's secret sharing over GF(2⁸), byte by byte.  Protocol: docs/protocol.md section 3.6.

The field is that of AES (FIPS 197 section 4.2, reduction polynomial 0x11B), as in SLIP-0039.
The secret is the polynomial's value at 0; share x is its value at x.

All bytes of a value are multiplied at once, as the 8-bit lanes of one integer, always by a field
element that is public (an x, or a Lagrange coefficient made of x's).  No table is read and no
branch taken by a secret: look-up tables leaked shares through the cache in CVE-2023-25000.
Python promises no constant time all the same, so this runs only where the whole secret is at home
anyway: with the publisher and on the attested host.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from custody.crypto.secret import Octets, Random
from custody.errors import Refused

#: x is one non-zero byte.
MAX_SHARES = 255

_REDUCTION = 0x1B


def split(secret: Octets, k: int, n: int, random: Random = os.urandom) -> tuple[bytearray, ...]:
    """Split ``secret`` into ``n`` shares for x = 1…n, any ``k`` of which give it back.

    2 ≤ k ≤ n ≤ 255.  ``random`` is called once per coefficient with ``len(secret)``, from the
    coefficient of degree 1 up to that of degree k-1.
    """
    if not 2 <= k <= n <= MAX_SHARES:
        raise ValueError("a split takes 2 <= k <= n <= 255")
    size = len(secret)
    if not size:
        raise ValueError("there is no secret to split")
    # Uniform means zero too, in the top coefficient as elsewhere: drawing 1…255 would tell k-1
    # holders one value that the secret cannot have, for every byte.
    coefficients = [int.from_bytes(secret, "big")]
    for _ in range(1, k):
        drawn = random(size)
        if len(drawn) != size:
            raise ValueError("the random source returned the wrong number of bytes")
        coefficients.append(int.from_bytes(drawn, "big"))
    return tuple(_evaluate(coefficients, x, size) for x in range(1, n + 1))


def combine(points: Sequence[tuple[int, Octets]]) -> bytearray:
    """Interpolate at 0 through ``points`` (x, share): exactly the k that the split asked for.

    Fewer give a wrong secret and nothing tells; the caller counts.  A repeated x, an x outside
    1…255, unequal or empty shares and fewer than two points are `Refused`.
    """
    if not 2 <= len(points) <= MAX_SHARES:
        raise Refused("a secret is combined from 2 to 255 shares", check="shamir.points")
    xs = [x for x, _ in points]
    # x = 0 is the secret's own place, and a repeated x makes the interpolation divide by zero.
    if len(set(xs)) != len(xs) or not all(0 < x <= MAX_SHARES for x in xs):
        raise Refused("shares need distinct x from 1 to 255", check="shamir.points")
    size = len(points[0][1])
    if not size or any(len(value) != size for _, value in points):
        raise Refused("shares need one length", check="shamir.points")
    secret = 0
    for x, value in points:
        secret ^= multiply(int.from_bytes(value, "big"), _weight(x, xs), size)
    return bytearray(secret.to_bytes(size, "big"))


def multiply(lanes: int, factor: int, size: int) -> int:
    """Multiply each of ``size`` byte lanes by the field element ``factor``.

    The same operations run whatever the lanes and the factor hold.
    """
    ones = int.from_bytes(b"\x01" * size, "big")
    product = 0
    for bit in range(8):
        product ^= lanes & -((factor >> bit) & 1)
        overflow = (lanes >> 7) & ones
        lanes = ((lanes & (ones * 0x7F)) << 1) ^ (overflow * _REDUCTION)
    return product


def _evaluate(coefficients: Sequence[int], x: int, size: int) -> bytearray:
    value = 0
    for coefficient in reversed(coefficients):
        value = multiply(value, x, size) ^ coefficient
    return bytearray(value.to_bytes(size, "big"))


def _weight(x: int, xs: Sequence[int]) -> int:
    """Return the Lagrange coefficient of ``x`` at 0: the product of xj / (xj - x)."""
    above, below = 1, 1
    for other in xs:
        if other != x:
            above = multiply(above, other, 1)
            below = multiply(below, other ^ x, 1)
    return multiply(above, _inverse(below), 1)


def _inverse(element: int) -> int:
    """Return element⁻¹ = element²⁵⁴ (Fermat, as the field has 256 elements)."""
    result = 1
    for _ in range(7):
        element = multiply(element, element, 1)
        result = multiply(result, element, 1)
    return result
