"""Write malformed.txt of envelope and of the statements.

Run as ``python -m tests.vectors.envelope.make``.  Every case is one change to a good file of
`tests.unit.formats.spec_examples`: to the envelope, or to the payload in it.  A change that finds
nothing to change is an error.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custody.formats.envelope import Signature, encode_statement
from tests.unit.formats import spec_examples as examples

VECTORS = Path(__file__).parents[1]
CANONICAL = "not in canonical form"
INVALID = "not a valid"
_ENROLMENT = encode_statement(
    examples.ENROLMENT, [Signature(keyid=digit * 64, sig=b"1") for digit in "ab"]
)
GOOD = {
    "denial": examples.EXAMPLES["approval/denial.dsse"],
    "approval": examples.EXAMPLES["approval/alice.dsse"],
    "manifest": examples.EXAMPLES["manifest/example.dsse"],
    "request": examples.EXAMPLES["request/example.dsse"],
    "receipt": examples.EXAMPLES["receipt/example.dsse"],
    "burn": examples.EXAMPLES["burn/example.dsse"],
    "enrolment": _ENROLMENT,
    "authorisation": examples.EXAMPLES["authorisation/example.dsse"],
    "logged": examples.EXAMPLES["logged/example.dsse"],
}


@dataclass(frozen=True)
class Case:
    kind: str
    comment: str
    reason: str
    file: bytes


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace the first ``old``, which must be there."""
    if old not in data:
        raise ValueError(f"nothing to change: {old!r}")
    return data.replace(old, new, 1)


def envelope(comment: str, reason: str, old: bytes, new: bytes, kind: str = "denial") -> Case:
    """Change the envelope's own text."""
    return Case(kind, comment, reason, replaced(GOOD[kind], old, new))


def around(payload: bytes, kind: str) -> bytes:
    """Put a payload into a good file's envelope.  Its signature is then wrong: nobody looks."""
    file = json.loads(GOOD[kind])
    file["payload"] = base64.b64encode(payload).decode()
    return json.dumps(file, separators=(",", ":")).encode()


def payload_of(kind: str) -> bytes:
    """Return a good file's payload."""
    return base64.b64decode(json.loads(GOOD[kind])["payload"])


def payload(comment: str, reason: str, old: bytes, new: bytes, kind: str = "denial") -> Case:
    """Change the payload's text."""
    return Case(kind, comment, reason, around(replaced(payload_of(kind), old, new), kind))


def envelopes() -> Iterator[Case]:
    """Changes to the envelope: its JSON, its base64, its signatures."""
    good = GOOD["denial"]
    yield Case("denial", "empty", INVALID, b"")
    yield Case("denial", "cut short", INVALID, good[:-1])
    yield Case("denial", "half of it", INVALID, good[: len(good) // 2])
    yield Case("denial", "a newline at the end", CANONICAL, good + b"\n")
    yield Case("denial", "a byte at the end", INVALID, good + b"x")
    yield Case("denial", "a zero byte at the end", INVALID, good + b"\0")
    yield Case("denial", "two files one after the other", INVALID, good + good)
    yield Case("denial", "a byte order mark", INVALID, b"\xef\xbb\xbf" + good)
    yield Case("denial", "UTF-16", INVALID, good.decode().encode("utf-16"))
    yield Case("denial", "a list around it", INVALID, b"[" + good + b"]")
    yield Case("denial", "a text", INVALID, json.dumps(good.decode()).encode())
    yield envelope("white space between fields", CANONICAL, b',"payloadType"', b', "payloadType"')
    pretty = json.dumps(json.loads(good), indent=1).encode()
    yield Case("denial", "printed for reading", CANONICAL, pretty)
    backwards = dict(reversed(json.loads(good).items()))
    turned = json.dumps(backwards, separators=(",", ":")).encode()
    yield Case("denial", "keys in another order", CANONICAL, turned)
    yield envelope("an unknown field", INVALID, b',"payloadType"', b',"payloadTyp":1,"payloadType"')
    yield envelope(
        "no payload type", INVALID, b'"payloadType":"application/vnd.in-toto+json",', b""
    )
    kind = b'"payloadType":"application/vnd.in-toto+json"'
    yield envelope("a key twice", CANONICAL, kind, kind + b"," + kind)
    yield envelope(
        "the payload twice, the first another",
        CANONICAL,
        b'{"payload"',
        b'{"payload":"e30=","payload"',
    )
    yield envelope("a key with an escape", CANONICAL, b'"payload"', rb'"\u0070ayload"')
    yield envelope("a value with an escape", CANONICAL, b"in-toto", rb"in-tot\u006f")
    yield envelope("a slash with an escape", CANONICAL, b"application/vnd", rb"application\/vnd")
    yield envelope("another payload type", INVALID, b"in-toto+json", b"in-toto.v1+json")
    yield envelope("the payload type in capitals", INVALID, b"in-toto+json", b"in-toto+JSON")
    yield from _base64()
    yield from _signatures()


def _base64() -> Iterator[Case]:
    text = json.loads(GOOD["denial"])["payload"].encode()
    body = text.rstrip(b"=")
    last = {b"A": b"B", b"Q": b"R", b"g": b"h", b"w": b"x", b"0": b"1"}
    if body != text:
        odd = body[:-1] + last.get(body[-1:], bytes([body[-1] + 1]))
        yield envelope("base64 with bits in its padding", CANONICAL, body, odd)
        yield envelope("base64 without padding", INVALID, text, body)
    yield envelope("base64 with too much padding", INVALID, text, text + b"====")
    yield envelope("base64 with a newline in it", INVALID, text[:64], text[:64] + rb"\n")
    yield envelope("base64 with a space in it", INVALID, text[:64], text[:64] + b" ")
    sig = json.loads(GOOD["denial"])["signatures"][0]["sig"].encode()
    for plain, safe in ((b"+", b"-"), (b"/", b"_")):
        if plain in sig:
            yield envelope("base64 for URLs", INVALID, sig, sig.replace(plain, safe))
            break
    else:
        raise ValueError("the example's signature has neither + nor /")
    yield envelope("an empty payload", "in-toto", text, b"")
    yield envelope("a payload that is no JSON", "in-toto", text, b"aGVsbG8=")
    yield envelope("a payload that is an object of nothing", "in-toto", text, b"e30=")


def _signatures() -> Iterator[Case]:
    whole = GOOD["denial"][GOOD["denial"].index(b'"signatures"') :]
    one = whole[len(b'"signatures":[') : -2]
    keyid = json.loads(one)["keyid"].encode()
    yield envelope("no signature", INVALID, whole, b'"signatures":[]}')
    yield envelope("null for signatures", INVALID, whole, b'"signatures":null}')
    yield envelope("the same signature twice", "keyid order", one, one + b"," + one)
    other = one.replace(keyid, b"f" * 64)
    yield envelope("two signatures where one belongs", "more than one", one, one + b"," + other)
    yield envelope("a key id in capitals", INVALID, keyid, keyid.upper())
    yield envelope("a key id cut short", INVALID, keyid, keyid[:-2])
    yield envelope("an empty key id", INVALID, keyid, b"")
    yield envelope("an empty signature", INVALID, json.loads(one)["sig"].encode(), b"")
    yield envelope("a signature with a field more", INVALID, b'{"keyid"', b'{"cert":"","keyid"')
    ab = GOOD["enrolment"]
    start, end = ab.index(b'{"keyid"'), ab.rindex(b"]")
    first, second = ab[start:end].split(b"},")
    first += b"}"
    swapped = ab[:start] + second + b"," + first + ab[end:]
    yield Case("enrolment", "signers out of order", "keyid order", swapped)
    twice = ab[:start] + first + b"," + first + ab[end:]
    yield Case("enrolment", "one signer twice", "keyid order", twice)
    again = first.replace(b"MQ==", b"Mg==")
    twice = ab[:start] + first + b"," + again + ab[end:]
    yield Case("enrolment", "one signer twice, with two signatures", "keyid order", twice)


def payloads() -> Iterator[Case]:
    """Changes to the payload: its JSON, texts, times and digests."""
    good = payload_of("denial")
    cases = {
        "cut short": ("in-toto", good[:-1]),
        "a newline at the end": (CANONICAL, good + b"\n"),
        "a space in front": (CANONICAL, b" " + good),
        "a byte at the end": ("in-toto", good + b"x"),
        "a byte order mark": ("in-toto", b"\xef\xbb\xbf" + good),
    }
    for comment, (reason, data) in cases.items():
        yield Case("denial", f"payload: {comment}", reason, around(data, "denial"))
    yield payload("payload: white space", CANONICAL, b'","', b'", "')
    yield payload("payload: another statement type", INVALID, b"Statement/v1", b"Statement/v0.1")
    yield payload("payload: another predicate type", "not 'urn", b"denial:v1", b"denial:v2")
    yield payload(
        "payload: of another format", "of kind approval, not denial", b"denial:v1", b"approval:v1"
    )
    yield payload("payload: two predicate types", CANONICAL, *_twice(b"predicateType"))
    yield payload("payload: a field of the predicate twice", CANONICAL, *_twice(b"deniedAt"))
    yield payload(
        "payload: a digest twice, the first another", CANONICAL, b'"request":"', _first_of_two()
    )
    yield payload("payload: an unknown field", INVALID, b'"reason"', b'"note":"","reason"')
    yield payload(
        "payload: a field of the statement more", INVALID, b',"subject"', b',"s":1,"subject"'
    )
    yield payload(
        "payload: a field of the subject more", INVALID, b',"name":"req', b',"a":1,"name":"req'
    )
    yield payload("payload: a missing field", INVALID, *_without(b"policy"))
    yield payload("payload: null for a field", INVALID, *_with(b"reason", b"null"))
    yield payload("payload: a number for a text", INVALID, *_with(b"reason", b"1"))
    statement = json.loads(good) | {"predicate": "approved"}
    text = json.dumps(statement, separators=(",", ":")).encode()
    yield Case("denial", "payload: a text for the predicate", INVALID, around(text, "denial"))
    yield payload("payload: keys in another order", CANONICAL, *_swapped(b"manifest", b"policy"))
    yield payload("payload: no subject", "subject", *_with_subject(b"[]"))
    yield payload("payload: a subject that does not follow", "subject", b"request.dsse", b"request")
    yield from _texts()
    yield from _times()
    yield from _digests()


def _value(name: bytes) -> bytes:
    found = json.loads(payload_of("denial"))
    value = found.get(name.decode(), found["predicate"].get(name.decode()))
    return b'"%b":%b' % (name, json.dumps(value).encode())


def _twice(name: bytes) -> tuple[bytes, bytes]:
    return _value(name), _value(name) + b"," + _value(name)


def _with(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return _value(name), b'"%b":%b' % (name, value)


def _without(name: bytes) -> tuple[bytes, bytes]:
    return _value(name) + b",", b""


def _swapped(one: bytes, two: bytes) -> tuple[bytes, bytes]:
    return _value(one) + b"," + _value(two), _value(two) + b"," + _value(one)


def _first_of_two() -> bytes:
    return b'"request":"' + b"0" * 64 + b'","request":"'


def _with_subject(value: bytes) -> tuple[bytes, bytes]:
    good = payload_of("denial")
    return good[good.index(b'"subject"') : -1], b'"subject":' + value


def _texts() -> Iterator[Case]:
    for comment, reason, text in (
        ("a byte that is no UTF-8", INVALID, b"\xff"),
        ("UTF-8 longer than it must be", INVALID, b"\xc0\xaf"),
        ("a surrogate in UTF-8", INVALID, b"\xed\xa0\x80"),
        ("a lone surrogate as an escape", "in-toto|" + INVALID, rb"\ud800"),
        ("a lone low surrogate as an escape", "in-toto|" + INVALID, rb"\udc00x"),
        ("a pair of surrogates as escapes", CANONICAL, rb"\ud83d\ude00"),
        ("a zero byte", "in-toto", b"\0"),
        ("a zero byte as an escape", INVALID, rb"\u0000"),
        ("a raw newline", "in-toto", b"\n"),
        ("a newline as an escape", INVALID, rb"\n"),
        ("an escape sequence of terminals", INVALID, rb"\u001b[2J"),
        ("a delete character", INVALID, b"\x7f"),
        ("a C1 control character", INVALID, "\x9b".encode()),
        ("a line separator", INVALID, "\u2028".encode()),
        ("a mark that turns text around", INVALID, "\u202e".encode()),
        ("an isolate that turns text around", INVALID, "\u2067".encode()),
        ("a byte order mark inside", INVALID, "\ufeff".encode()),
        ("a letter as an escape", CANONICAL, rb"\u0061"),
        ("an escape in capitals", CANONICAL, rb"\u00E9"),
        ("4097 characters", INVALID, b"a" * 4097),
    ):
        yield payload(f"text: {comment}", reason, *_with(b"reason", b'"%b"' % text))


def _times() -> Iterator[Case]:
    for comment, reason, text in (
        ("with +00:00", CANONICAL, "2027-01-05T12:25:00+00:00"),
        ("with -00:00", CANONICAL, "2027-01-05T12:25:00-00:00"),
        ("with another offset", "whole seconds|" + CANONICAL, "2027-01-05T14:25:00+02:00"),
        ("with no offset", INVALID, "2027-01-05T12:25:00"),
        ("with a fraction of nothing", CANONICAL, "2027-01-05T12:25:00.0Z"),
        ("with a fraction", INVALID, "2027-01-05T12:25:00.5Z"),
        ("with a fraction too small to see", CANONICAL, "2027-01-05T12:25:00.0000001Z"),
        ("with a small z", CANONICAL, "2027-01-05T12:25:00z"),
        ("with a small t", CANONICAL, "2027-01-05t12:25:00Z"),
        ("with a space", CANONICAL, "2027-01-05 12:25:00Z"),
        ("without seconds", INVALID, "2027-01-05T12:25Z"),
        ("with a leap second", INVALID, "2027-06-30T23:59:60Z"),
        ("at 24:00", INVALID, "2027-01-05T24:00:00Z"),
        ("on 29 February of a common year", INVALID, "2027-02-29T00:00:00Z"),
        ("in year 0", INVALID, "0000-01-05T12:25:00Z"),
        ("before 1970", INVALID, "1969-12-31T23:59:59Z"),
        ("in the last year of four digits", INVALID, "9999-12-31T23:59:59Z"),
        ("in a year of five digits", INVALID, "12027-01-05T12:25:00Z"),
        ("in seconds since 1970, as a text", INVALID, "1799151900"),
        ("with blanks", INVALID, " 2027-01-05T12:25:00Z"),
    ):
        yield payload(f"time: {comment}", reason, *_with(b"deniedAt", b'"%b"' % text.encode()))
    yield payload("time: in seconds since 1970", INVALID, *_with(b"deniedAt", b"1799151900"))


def _digests() -> Iterator[Case]:
    for comment, text in (
        ("in capitals", "AB" * 32),
        ("a byte short", "ab" * 31),
        ("half a byte long", "ab" * 32 + "a"),
        ("with a newline", "ab" * 32 + "\\n"),
        ("with a prefix", "sha256:" + "ab" * 32),
        ("in base64", "q" * 43 + "="),
        ("empty", ""),
        ("in full-width digits", "\uff11" * 64),
    ):
        yield payload(f"digest: {comment}", INVALID, *_with(b"policy", b'"%b"' % text.encode()))


def numbers() -> Iterator[Case]:
    """One number in every form but its own."""
    for comment, reason, text in (
        ("negative", INVALID, b"-7"),
        ("negative zero", CANONICAL, b"-0"),
        ("a fraction of nothing", INVALID, b"7.0"),
        ("a fraction", INVALID, b"7.5"),
        ("an exponent", INVALID, b"7e0"),
        ("an exponent in capitals", INVALID, b"7E0"),
        ("a leading zero", "in-toto", b"07"),
        ("a plus", "in-toto", b"+7"),
        ("hexadecimal", "in-toto", b"0x7"),
        ("NaN", "in-toto", b"NaN"),
        ("Infinity", "in-toto", b"Infinity"),
        ("2 to the 53, which some readers round", INVALID, b"9007199254740992"),
        ("2 to the 63", INVALID, b"9223372036854775808"),
        ("2 to the 64", INVALID, b"18446744073709551616"),
        ("4,000 digits", INVALID, b"9" * 4000),
        ("6,000 digits", "in-toto|" + INVALID, b"9" * 6000),
        ("more than a float holds", INVALID + "|in-toto", b"1e400"),
        ("a text", INVALID, b'"7"'),
        ("true", INVALID, b"true"),
        ("a list", INVALID, b"[7]"),
    ):
        yield payload(f"number: {comment}", reason, b'"counter":7', b'"counter":' + text, "receipt")
    deep = b"[" * 33 + b"]" * 33
    yield payload(
        "nesting: 33 lists in each other", "deep", b'"reason":""', b'"reason":' + deep, "receipt"
    )


def manifests() -> Iterator[Case]:
    """Fields of a manifest out of their limits."""

    def case(comment: str, old: bytes, new: bytes, reason: str = INVALID) -> Case:
        return payload(comment, reason, old, new, "manifest")

    size, count = b'"partSizeBytes":65536', b'"partCount":2'
    yield case("parts of no power of two", size, b'"partSizeBytes":65537')
    yield case("parts of 32 KiB", size, b'"partSizeBytes":32768')
    yield case("parts of 128 MiB", size, b'"partSizeBytes":134217728')
    yield case("no part", count, b'"partCount":0')
    yield case("one part more than 2 to the 24", count, b'"partCount":16777217')
    yield case("policy version 0", b'"policyVersion":1', b'"policyVersion":0')
    yield case("another digest of parts", b'"blake3"', b'"md5"')
    yield case("over before it is sealed", b'"notAfter":"2027', b'"notAfter":"2026')
    yield case("a site key that has no slot", b'"site":null', b'"site":["' + b"00" * 32 + b'"]')
    yield case("no site keys", b'"site":null', b'"site":[]')
    yield case("one site key, not a list", b'"site":null', b'"site":"' + b"00" * 32 + b'"')
    twice = b'"' + b"00" * 32 + b'"'
    yield case("a site key twice", b'"site":null', b'"site":[' + twice + b"," + twice + b"]")
    yield case("a recovery key", b'"recovery":null', b'"recovery":"' + b"00" * 32 + b'"')
    yield case("no word on what it replaces", b'"replaces":null,', b"")
    yield case("a slot for another purpose", b'"purpose":"share"', b'"purpose":"escrow"')
    yield case("a site's slot with a leaf", b'"purpose":"share"', b'"purpose":"site"')
    yield case(
        "a share without a leaf", b'"leaf":"0","purpose":"share"', b'"leaf":"","purpose":"share"'
    )
    tail = b'"purpose":"contents","recipient":"'
    last = payload_of("manifest").rindex(tail) + len(tail)
    tail += payload_of("manifest")[last : last + 64]
    yield case("contents with a leaf", b'"leaf":"",' + tail, b'"leaf":"0",' + tail)
    yield case("another suite", b'"suite":"P256"', b'"suite":"P521"')
    for comment, leaf in (
        ("a leaf beyond 31", b"32"),
        ("a leaf with a zero in front", b"00"),
        ("a leaf with a slash at its end", b"0/"),
        ("a leaf nine deep", b"0/0/0/0/0/0/0/0/0"),
        ("a negative leaf", b"-1"),
    ):
        yield case(
            comment, b'"leaf":"0","purpose":"share"', b'"leaf":"%b","purpose":"share"' % leaf
        )
    yield from _rearranged()


def _rearranged() -> Iterator[Case]:
    """Lists in another order, with an entry twice or missing."""

    def case(comment: str, name: str, change: str) -> Case:
        statement = json.loads(payload_of("manifest"))
        box = statement["predicate"]["envelope"]
        items = box[name]
        box[name] = {
            "turned": items[::-1],
            "twice": [items[0], *items],
            "first": items[:1],
            "none": [],
        }[change]
        data = json.dumps(statement, separators=(",", ":")).encode()
        return Case("manifest", comment, INVALID, around(data, "manifest"))

    yield case("slots out of order", "slots", "turned")
    yield case("a slot twice", "slots", "twice")
    yield case("no slot", "slots", "none")
    yield case("commitments out of order", "commitments", "turned")
    yield case("a commitment twice", "commitments", "twice")
    yield case("no commitment", "commitments", "none")
    yield case("wraps out of order", "wraps", "turned")
    yield case("one wrap", "wraps", "first")
    yield case("three wraps", "wraps", "twice")
    good = json.loads(payload_of("manifest"))["predicate"]["envelope"]
    for comment, old, new in (
        ("a wrap a byte short", good["wraps"][0]["sealed"], _b64(47)),
        ("a wrap a byte long", good["wraps"][0]["sealed"], _b64(49)),
        ("a salt a byte short", good["wraps"][0]["salt"], _b64(31)),
        ("a slot of 15 bytes", good["slots"][0]["sealed"], _b64(15)),
        ("a slot of 8193 bytes", good["slots"][0]["sealed"], _b64(8193)),
    ):
        yield payload(comment, INVALID, old.encode(), new.encode(), "manifest")
    yield payload("a commitment to no leaf", INVALID, b'","leaf":"0"}', b'","leaf":""}', "manifest")


def _b64(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


def requests() -> Iterator[Case]:
    """Fields of a request out of their limits."""

    def case(comment: str, old: bytes, new: bytes, reason: str = INVALID) -> Case:
        return payload(comment, reason, old, new, "request")

    ak = json.loads(payload_of("request"))["predicate"]["terms"]["akName"].encode()
    nv = json.loads(payload_of("request"))["predicate"]["nvPublic"].encode()
    yield case("another mode", b'"mode":"once"', b'"mode":"twice"')
    yield case("a Name by SHA-1", ak, b"0004" + ak[4:44])
    yield case("a Name by SHA-384 of 32 bytes", ak, b"000c" + ak[4:])
    yield case("a Name in capitals", ak, ak[:4] + b"A" * 64)
    yield case("a handle for a Name", ak, b"81010001")
    yield case("a reset count of 33 bits", b'"resetCount":3', b'"resetCount":4294967296')
    yield case("a restart count below zero", b'"restartCount":0', b'"restartCount":-1')
    yield case("a host in capitals", b'"gpu-1"', b'"GPU-1"')
    yield case("a host with a slash", b'"gpu-1"', b'"gpu/1"')
    yield case("a host of 64 characters", b'"gpu-1"', b'"' + b"a" * 64 + b'"')
    yield case("an empty host", b'"gpu-1"', b'""')
    yield case("an ML-KEM key a byte short", b'"mlkem":null', b'"mlkem":"%b"' % _b64(1567).encode())
    yield case("an empty TPM structure", nv, b"")
    yield case("a checkpoint that is no digest", b'"checkpoint":null', b'"checkpoint":0')
    yield case("a suite of its own", b'"suite":"P256"', b'"suite":"p256"')
    yield case("no event log", b'"eventLog":"",', b"")


def approvals() -> Iterator[Case]:
    """Fields of an approval out of their limits."""

    def case(comment: str, old: bytes, new: bytes) -> Case:
        return payload(comment, INVALID, old, new, "approval")

    said = json.loads(payload_of("approval"))["predicate"]
    share, terms = said["sealedShare"].encode(), said["termsSignature"].encode()
    yield case("a share of 15 bytes", share, _b64(15).encode())
    yield case("a share of 8193 bytes", share, _b64(8193).encode())
    yield case("a signature on the terms of 7 bytes", terms, _b64(7).encode())
    yield case("a signature on the terms of 81 bytes", terms, _b64(81).encode())
    yield case("a leaf that is a number", b'"leaf":"0"', b'"leaf":0')
    yield case("no leaf", b'"leaf":"0",', b"")
    yield case("a reason, as a denial has", b'"request"', b'"reason":"","request"')


def receipts() -> Iterator[Case]:
    """Fields of a receipt out of their limits."""

    def case(comment: str, old: bytes, new: bytes) -> Case:
        return payload(comment, INVALID, old, new, "receipt")

    listed = json.loads(payload_of("receipt"))["predicate"]["approvals"]
    one, two = (digest.encode() for digest in listed)
    yield case("another outcome", b'"opened"', b'"burned"')
    yield case("approvals out of order", one + b'","' + two, two + b'","' + one)
    yield case("an approval twice", one + b'","' + two, one + b'","' + one)
    yield case("a bad share that is a leaf only", b'"badShares":[]', b'"badShares":["0"]')
    yield from numbers()


def burns() -> Iterator[Case]:
    """Fields of a burn receipt out of their limits."""

    def case(comment: str, old: bytes, new: bytes) -> Case:
        return payload(comment, INVALID, old, new, "burn")

    said = json.loads(payload_of("burn"))["predicate"]
    receipt = said["receipt"].encode()
    yield case("no receipt", b'"receipt":"%b",' % receipt, b"")
    yield case("a receipt that is null", b'"%b"' % receipt, b"null")
    yield case("a receipt's digest in capitals", receipt, receipt.upper())
    yield case("a counter below zero", b'"counter":7', b'"counter":-7')
    yield case("a counter that is a text", b'"counter":7', b'"counter":"7"')
    yield case("a value beside the certified one", b'"counter":7', b'"counter":7,"value":8')
    yield payload(
        "a receipt, offered as a burn receipt",
        "holds",
        b"urn:custody:burn:v1",
        b"urn:custody:receipt:v1",
        "burn",
    )
    yield payload(
        "about another request than its subject",
        "subject",
        said["request"].encode(),
        receipt,
        "burn",
    )


def authorisations() -> Iterator[Case]:
    """Fields of an authorisation out of their limits."""

    def case(comment: str, old: bytes, new: bytes, reason: str = INVALID) -> Case:
        return payload(comment, reason, old, new, "authorisation")

    said = json.loads(payload_of("authorisation"))["predicate"]
    golden, signature = said["golden"].encode(), said["stateSignature"].encode()
    yield case("a signature on the state of 7 bytes", signature, _b64(7).encode())
    yield case("a signature on the state of 81 bytes", signature, _b64(81).encode())
    yield case("no signature on the state", b',"stateSignature":"%b"' % signature, b"")
    yield case("two signatures on the state", b'"%b"' % signature, b'["%b"]' % signature)
    yield case("an epoch of its own", b'"environment"', b'"epoch":2,"environment"')
    yield case("a name of its own", b',"stateSignature"', b',"name":"lab","stateSignature"')
    yield case("a golden set by name", golden, b"lab-6.1")
    yield case("about another golden set than its subject", golden, b"0" * 64, "subject")
    yield case("no environment", b'"environment":"%b",' % said["environment"].encode(), b"")
    yield case(
        "a burn receipt, offered as an authorisation",
        b"urn:custody:authorisation:v1",
        b"urn:custody:burn:v1",
        "holds",
    )


def logged() -> Iterator[Case]:
    """Fields of a log's word out of their limits."""

    def case(comment: str, change: Callable[[dict[str, Any]], None]) -> Case:
        statement = json.loads(payload_of("logged"))
        change(statement["predicate"])
        data = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
        return Case("logged", comment, INVALID, around(data, "logged"))

    def entry(number: int, **fields: object) -> Callable[[dict[str, Any]], None]:
        return lambda said: said["entries"][number].update(fields)

    first = json.loads(payload_of("logged"))["predicate"]["entries"][0]
    yield case("entries out of order", lambda said: said["entries"].reverse())
    yield case("one index twice", entry(1, index=first["index"]))
    yield case("one statement twice", entry(1, statement=first["statement"]))
    yield case("no entry", lambda said: said.update(entries=[]))
    yield case("1025 entries", lambda said: said.update(entries=_entries(1025)))
    yield case("a negative index", entry(0, index=-1))
    yield case("a kind in capitals", entry(0, kind="Request"))
    yield case("a kind of two lines", entry(0, kind="request\n"))
    yield case("a proof of 64 hashes", entry(0, proof=[_b64(32)] * 64))
    yield case("a hash a byte short", entry(0, proof=[_b64(31)]))
    yield case("consistency of 64 hashes", lambda said: said.update(consistency=[_b64(32)] * 64))
    yield case("an empty checkpoint", lambda said: said.update(checkpoint=""))
    yield case(
        "a checkpoint of more than 256 KiB", lambda said: said.update(checkpoint=_b64(262145))
    )
    yield case("a signature of 81 bytes", lambda said: said.update(termsSignature=_b64(81)))
    yield payload(
        "an approval, offered as a log's word",
        "of kind approval, not logged",
        b"urn:custody:logged:v1",
        b"urn:custody:approval:v1",
        "logged",
    )
    yield payload("no time", INVALID, b'"loggedAt":"2027', b'"loggedOn":"2027', "logged")


def _entries(count: int) -> list[dict[str, object]]:
    return [
        {"index": n, "kind": "approval", "proof": [], "statement": f"{n:064x}"}
        for n in range(count)
    ]


FILES = {
    "envelope": [*envelopes(), *payloads()],
    "manifest": list(manifests()),
    "request": list(requests()),
    "approval": list(approvals()),
    "receipt": list(receipts()),
    "burn": list(burns()),
    "authorisation": list(authorisations()),
    "logged": list(logged()),
}


def main() -> None:
    """Write every file."""
    for folder, cases in FILES.items():
        lines = [
            "# What no reader takes: each is one change to an example.  kind: what it is offered",
            "# as; reason: part of ours, | between alternatives; file: base64 of the whole file.",
        ]
        for case in cases:
            lines += ["", f"comment: {case.comment}", f"kind: {case.kind}"]
            lines += [f"reason: {case.reason}", f"file: {base64.b64encode(case.file).decode()}"]
        (VECTORS / folder).mkdir(exist_ok=True)
        (VECTORS / folder / "malformed.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
