"""Strict readers and writers: JSON records, times, digests.

Every document is a :class:`Record`: a frozen struct whose one encoding is compact JSON with sorted
keys.  `decode` accepts only the bytes that `encode` would write, so duplicate keys, unknown fields,
white space, escapes that need not be there, non-canonical base64 and trailing bytes are all
`Malformed`, and a document has exactly one digest.  Format: formats/envelope.md, "Conventions".
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from custody.errors import Malformed

_DIGEST = r"\A[0-9a-f]{64}\Z"
_TPM_NAME = r"\A000b[0-9a-f]{64}\Z|\A000c[0-9a-f]{96}\Z"
_NAME = r"\A[a-z0-9][a-z0-9._-]{0,62}\Z"
_TEXT = r"\A[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]*\Z"
#: What people are told instead of a pattern.
_WORDS = {
    _DIGEST: "64 lower-case hexadecimal digits",
    _TPM_NAME: "a TPM Name in lower-case hexadecimal",
    _NAME: "a name of 1 to 63 of a-z, 0-9, dot, dash and underscore",
    _TEXT: "one line of words, no control or direction marks",
}

#: Lower-case hex of a SHA-256 digest (64 characters).
Digest = Annotated[str, msgspec.Meta(pattern=_DIGEST)]
#: SHA-256 of a DER SubjectPublicKeyInfo, as `Digest`.
KeyId = Digest
#: Lower-case hex of a TPM Name: nameAlg (2 bytes) and its digest.
TpmName = Annotated[str, msgspec.Meta(pattern=_TPM_NAME)]
#: A short machine name: principals, environments, hosts.
Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
#: Words for people, one line: no control characters, line ends, or marks that turn the direction
#: of their neighbours around, with which a name can be made to read as another.
Text = Annotated[str, msgspec.Meta(max_length=4096, pattern=_TEXT)]
#: A count that every JSON reader reads as the same number (RFC 7493 section 2.2).
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
#: A moment: RFC 3339 UTC, whole seconds, `Z`, from 1970 to 9998.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
#: 32 bytes.
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
#: A DER or TPM structure.
Blob = Annotated[bytes, msgspec.Meta(min_length=1, max_length=65536)]

#: The largest statement any reader takes, in bytes.
MAX_STATEMENT_BYTES = 16 << 20
#: How deep arrays may lie in each other.  Without a number of our own the limit would be whatever
#: stack is left, and a document would be good or bad by who reads it.
MAX_NESTING = 32
_KIND = re.compile(r"\Acustody/[a-z-]{1,40}/v[0-9]{1,4}\Z")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One JSON object of a format document.  All fields are always written."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, datetime):
                _check_moment(field, value)


_ZERO = timedelta(0)
# The closing quote may be missing, so that this never fails and looks at every byte once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def _check_moment(field: str, value: datetime) -> None:
    if value.microsecond or value.utcoffset() != _ZERO:
        raise ValueError(f"{field}: not a UTC time in whole seconds")
    # A year of slack at either end, so that no sum of a time and a limit can overflow.
    if not 1970 <= value.year <= 9998:
        raise ValueError(f"{field}: not between 1970 and 9998")


R = TypeVar("R")


def encode(record: object) -> bytes:
    """Write the canonical form: compact JSON, keys sorted, UTF-8, no trailing newline."""
    return msgspec.json.encode(record, order="sorted")


def decode(kind: type[R], data: bytes, *, max_bytes: int = MAX_STATEMENT_BYTES) -> R:
    """Read the one form that `encode` writes for ``kind``; raise `Malformed` on any other."""
    if len(data) > max_bytes:
        raise Malformed(f"larger than the {max_bytes} bytes allowed")
    check_nesting(data)
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = _another(kind, data) or first_line(error)
        raise Malformed(f"not a valid {_label(kind)}: {reason}") from error
    # Accepting only what we would write ourselves closes every ambiguity of JSON at once:
    # a parser that takes the last of two duplicate keys and one that takes the first would
    # otherwise read two different documents under one signature.
    if encode(record) != data:
        raise Malformed(
            "not in canonical form (duplicate keys, key order, white space, escapes, base64, "
            "a form of time or number, or trailing bytes)"
        )
    return record


def check_nesting(data: bytes) -> None:
    """Raise `Malformed` if arrays lie more than `MAX_NESTING` deep in each other in JSON."""
    if data.count(b"[") <= MAX_NESTING:
        return
    depth = 0
    for bracket in re.finditer(rb"[\[\]]", _STRING.sub(b"", data)):
        depth += 1 if bracket.group() == b"[" else -1
        if depth > MAX_NESTING:
            raise Malformed(f"arrays lie more than {MAX_NESTING} deep in each other")


class _Said(msgspec.Struct, rename="camel"):
    kind: str = ""
    payload_type: str = ""


def _another(kind: object, data: bytes) -> str:
    """Return what JSON that was taken for a ``kind`` says that it is; empty if it does not say."""
    try:
        said = msgspec.json.decode(data, type=_Said)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    expected = str(getattr(kind, "__annotations__", {}).get("kind", ""))
    if _KIND.match(said.kind) and said.kind not in expected:
        return f"its kind is {said.kind}"
    if said.payload_type and "payload_type" not in getattr(kind, "__annotations__", {}):
        return "it is a signed statement"
    return ""


def _label(kind: object) -> str:
    return str(getattr(kind, "__name__", kind)).lstrip("_").lower()


def first_line(error: Exception) -> str:
    """Return what a JSON library says is wrong, as one printable line."""
    # The library repeats names and tags from the input, which may hold escape sequences.
    line = (str(error) or type(error).__name__).splitlines()[0]
    for pattern, words in _WORDS.items():
        line = line.replace(f"`str` matching regex {pattern!r}", words)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[:200])


def check_text(text: str) -> str:
    """Return ``text`` if it is `Text` and not empty, or raise `Malformed`."""
    try:
        text.encode()
        msgspec.convert(text, Text)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise Malformed(
            "is too long, or holds line ends or other characters that are no words"
        ) from error
    if not text.strip():
        raise Malformed("is empty")
    return text


def sha256(*parts: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 over the concatenation of ``parts`` (32 bytes)."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.digest()


def key_id(spki: bytes) -> KeyId:
    """Return the hex SHA-256 of a DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7)."""
    return sha256(spki).hex()


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 UTC time with whole seconds, as ``2027-01-05T00:00:00Z``."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed(f"not an RFC 3339 UTC time with whole seconds: {text!r}") from error
    # strptime takes digits away where it can: 2027-1-5T0:0:0Z.
    if format_time(moment) != text:
        raise Malformed(f"not an RFC 3339 UTC time with whole seconds: {text!r}")
    return moment


def format_time(moment: datetime) -> str:
    """Write a time as `parse_time` reads it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> datetime:
    """Return the machine's clock, in whole seconds UTC.  Only the edge of the program calls it."""
    return datetime.now(UTC).replace(microsecond=0)
