"""What keys in a token may do that they should not: Clulow's conflicts and Tookan's attacks.

Pure: the adapter reads the objects.  Sources: Clulow, "On the Security of PKCS #11" (CHES 2003);
Bortolozzo, Centenaro, Focardi, Steel, "Attacking and Fixing PKCS#11 Security Tokens" (CCS 2010),
whose attacks A1 to A5 are named below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from custody.encoding import Record

ObjectKind = Literal["private", "secret", "public", "certificate", "data", "other"]

#: Mechanisms by which a key gives others away or can be asked for them, bit by bit.
WEAK_MECHANISMS = frozenset(
    {
        "RSA_PKCS",  # Bleichenbacher 1998: an oracle for whoever may call decrypt or unwrap
        "RSA_X_509",
        "AES_ECB",
        "AES_CBC",
        "AES_CBC_PAD",  # Vaudenay 2002
        "DES_ECB",
        "DES_CBC",
        "DES_CBC_PAD",
        "DES3_ECB",
        "DES3_CBC",
        "DES3_CBC_PAD",
    }
)
_LEAST_RSA_BITS = 2048


class HeldObject(Record, frozen=True):
    """One object in a token, as the token describes it."""

    kind: ObjectKind
    type: str
    """Its key type, as EC, RSA, AES; empty where it has none."""
    label: str
    id: str
    """Its id in hex."""
    role: str
    """The role it was made for here and is fit for, or empty."""
    flags: tuple[str, ...]
    """Attributes that are true, sorted."""
    untold: tuple[str, ...]
    """Attributes that the token does not tell, or does not know."""
    mechanisms: tuple[str, ...]
    """CKA_ALLOWED_MECHANISMS; empty: any."""
    size_bits: int
    """Size of an RSA modulus; 0 where it is something else."""
    digest: str
    """SHA-256 of the modulus or point, the same for both halves; empty where neither shows."""
    excused: tuple[str, ...]
    """Attributes that the device's profile says it cannot have otherwise."""


class Finding(Record, frozen=True):
    """One thing to know of one object.  ``weak`` ones are refused."""

    name: str
    weak: bool
    subject: str
    says: str


class AuditReport(Record, frozen=True):
    """What a token holds and what is wrong with it."""

    kind: Literal["custody/token-audit/v1"]
    label: str
    serial: str
    profile: str
    objects: tuple[HeldObject, ...]
    findings: tuple[Finding, ...]


def audit(objects: Sequence[HeldObject]) -> tuple[Finding, ...]:
    """Find weak combinations, in the objects' order."""
    found = [_finding(item, *named) for item in objects for named in _alone(item)]
    found += [_finding(item, *named) for item in objects for named in _beside(item, objects)]
    return tuple(found)


_Named = tuple[str, bool, str]


def _finding(item: HeldObject, name: str, weak: bool, says: str) -> Finding:  # noqa: FBT001  a row of the tables below
    named = f"{item.kind} {item.label!r}" + (f" id {item.id}" if item.id else "")
    return Finding(name=name, weak=weak, subject=named, says=says)


def _may(item: HeldObject, *uses: str) -> bool:
    return all(use in item.flags for use in uses)


# Pairs of uses that no key may have both of.
_CONFLICTS: tuple[tuple[str, str, str], ...] = (
    ("WRAP", "DECRYPT", "A1: wraps any key that may leave, then decrypts what it wrapped"),
    ("UNWRAP", "ENCRYPT", "A5: encrypts a chosen value, then unwraps it as a key of any kind"),
    ("SIGN", "DECRYPT", "one prompt for the PIN can stand for either"),
    ("SIGN", "DERIVE", "one prompt for the PIN can stand for either"),
    ("SIGN", "UNWRAP", "one prompt for the PIN can stand for either"),
    ("UNWRAP", "DECRYPT", "A2: decrypts what was wrapped for it, and reads the key within"),
    ("SIGN_RECOVER", "DECRYPT", "a signature that is recovered from is a decryption"),
    ("SIGN_RECOVER", "UNWRAP", "signs what was wrapped for it, and so reads the key within"),
)


def _both(one: str, other: str) -> str:
    return f"{one}-and-{other}".lower().replace("_", "-")


def _alone(item: HeldObject) -> Iterator[_Named]:
    if item.kind not in ("private", "secret"):
        return
    for one, other, why in _CONFLICTS:
        if _may(item, one, other):
            # Where the device makes every key so, the one mechanism it allows is what holds.
            alone = len(item.mechanisms) == 1 and bool({one, other} & set(item.excused))
            says = (
                f"{why}; its device makes all so, and it allows {item.mechanisms[0]}"
                if alone
                else why
            )
            yield _both(one, other), not alone, says
    for name, broken, why in _PROTECTIONS:
        if broken(item):
            yield name, True, why
    weak = sorted(WEAK_MECHANISMS & set(item.mechanisms))
    if weak and any(use in item.flags for use in ("DECRYPT", "WRAP", "UNWRAP")):
        yield "weak-mechanism", True, f"allows {' '.join(weak)}"
    if item.type == "RSA" and 0 < item.size_bits < _LEAST_RSA_BITS:
        yield "short-key", True, f"an RSA modulus of {item.size_bits} bits"
    yield from _notes(item)


def _lacks(flag: str) -> Callable[[HeldObject], bool]:
    # What the token does not tell is taken for what would be worst, unless its profile knows why.
    return lambda item: flag not in item.flags and flag not in item.excused


def _has(flag: str) -> Callable[[HeldObject], bool]:
    return lambda item: (flag in item.flags or flag in item.untold) and flag not in item.excused


_PROTECTIONS: tuple[tuple[str, Callable[[HeldObject], bool], str], ...] = (
    ("readable", _lacks("SENSITIVE"), "A3: whoever is logged in can read its value"),
    (
        "extractable-by-anyone",
        lambda item: _has("EXTRACTABLE")(item) and "WRAP_WITH_TRUSTED" not in item.flags,
        "A2: whoever is logged in can bring a wrapping key of his own and take it out",
    ),
    ("modifiable", _has("MODIFIABLE"), "A4, A5: uses can be added to it later"),
    (
        "any-mechanism",
        lambda item: not item.mechanisms and "ALLOWED_MECHANISMS" not in item.excused,
        "nothing says which mechanisms it may be used with",
    ),
    (
        "trusted-and-decrypt",
        lambda item: _may(item, "TRUSTED") and _may(item, "DECRYPT"),
        "a key that others are wrapped by on trust can read them",
    ),
)


def _notes(item: HeldObject) -> Iterator[_Named]:
    if _lacks("LOCAL")(item):
        yield "imported", False, "was not made in this token: others may have it"
    if _lacks("ALWAYS_SENSITIVE")(item):
        yield "was-readable", False, "could be read once"
    if _lacks("NEVER_EXTRACTABLE")(item) and "EXTRACTABLE" not in item.flags:
        yield "was-extractable", False, "could be taken out once"
    if _may(item, "UNWRAP") and item.kind == "secret":
        yield "unwraps", False, "takes in whatever somebody with the same key wrapped"


def _beside(item: HeldObject, objects: Sequence[HeldObject]) -> Iterator[_Named]:
    if _may(item, "TRUSTED", "WRAP"):
        yield "trusted", False, "recoverable keys leave under it: is it the recovery key's?"
    if item.kind == "public":
        pairs = [other for other in objects if _is_half(other, item)]
        if _may(item, "WRAP") and any(_may(other, "DECRYPT") for other in pairs):
            yield "wrap-and-decrypt", True, "A2: its private half decrypts what it wraps"
        if _may(item, "ENCRYPT") and any(_may(other, "UNWRAP") for other in pairs):
            yield "unwrap-and-encrypt", True, "A5: its private half unwraps what it encrypts"
        if _may(item, "WRAP") and not _may(item, "TRUSTED"):
            yield "untrusted-wrap", False, "wraps every key that may leave without a trusted one"
        rivals = {
            other.digest for other in objects if (other.kind, other.id) == ("public", item.id)
        }
        if item.id and len(rivals) > 1:
            yield "decoy", True, "another public key lies under the same id"
    if item.kind == "private":
        yield from _by_turns(item, objects)
    labels = Counter(other.label for other in objects if other.kind == item.kind)
    if item.label and labels[item.label] > 1 and item.kind in ("private", "secret"):
        yield "one-label", False, f"{labels[item.label]} keys bear this label"


def _is_half(private: HeldObject, public: HeldObject) -> bool:
    # An id is what somebody wrote there: under two ids the halves of one key are still one key.
    same = _is_one_key(private, public) or private.id == public.id
    return private.kind == "private" and same


def _is_one_key(one: HeldObject, other: HeldObject) -> bool:
    return bool(one.digest) and one.digest == other.digest


def _by_turns(item: HeldObject, objects: Sequence[HeldObject]) -> Iterator[_Named]:
    """Find uses that conflict where one private key lies there as several objects."""
    twins = [
        other
        for other in objects
        if other is not item and other.kind == "private" and _is_one_key(item, other)
    ]
    for one, other, why in _CONFLICTS:
        if _may(item, one, other):
            continue  # found in it alone
        for mine, its in ((one, other), (other, one)):
            if _may(item, mine) and any(_may(twin, its) for twin in twins):
                yield _both(one, other), True, f"{why}; another object is the same key"
