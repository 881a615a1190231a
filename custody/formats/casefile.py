"""A case in one file, the same bytes from the same members.  Format: casefile.md, version 1.

What a member is called follows from what it holds, and so does the order: two people who collect
the same statements have the same file, however theirs were named.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from custody.crypto.der import MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES
from custody.encoding import (
    MAX_STATEMENT_BYTES,
    Digest,
    Record,
    decode,
    encode,
    sha256,
)
from custody.errors import Malformed, Refused
from custody.formats.case import MAX_FILES
from custody.formats.envelope import decode_envelope
from custody.formats.logentry import entry_of
from custody.formats.logproof import MAX_PROOF_BYTES
from custody.formats.timestamp import MAX_TOKEN_BYTES
from custody.formats.witnessing import MAX_REQUEST_BYTES

SUFFIX = ".case"
MAGIC = b"custody case file 1\n"
#: All members, the index and what surrounds them.
MAX_BYTES = 512 << 20
MAX_INDEX_BYTES = 8 << 20

_LENGTH_BYTES = 8
_DIGEST_BYTES = 32
_LIMITS = {
    ".dsse": MAX_STATEMENT_BYTES,
    ".cer": MAX_CERTIFICATE_BYTES,
    ".crl": MAX_CRL_BYTES,
    ".tlog-proof": MAX_PROOF_BYTES,
    ".tlog-consistency": MAX_REQUEST_BYTES,
    ".tsr": MAX_TOKEN_BYTES,
}
#: What members that are no statements are called.
_WORDS = {
    ".cer": "certificate",
    ".crl": "crl",
    ".tlog-proof": "proof",
    ".tlog-consistency": "consistency",
    ".tsr": "timestamp",
}
_NAME = (
    r"\A(?:[a-z][a-z-]{0,31}-[0-9a-f]{64}\.dsse|certificate-[0-9a-f]{64}\.cer"
    r"|crl-[0-9a-f]{64}\.crl|proof-[0-9a-f]{64}\.tlog-proof"
    r"|consistency-[0-9a-f]{64}\.tlog-consistency|timestamp-[0-9a-f]{64}\.tsr)\Z"
)
_SUFFIX = re.compile(r"\.[a-z-]+\Z")

#: ``KIND-DIGEST.SUFFIX``: of statements the statement digest, of other files SHA-256 of the bytes.
MemberName = Annotated[str, msgspec.Meta(pattern=_NAME)]


class Member(Record, frozen=True):
    """One file of a case: what it is called, how long it is, and SHA-256 of its bytes."""

    name: MemberName
    digest: Digest
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_STATEMENT_BYTES)]


class Index(Record, frozen=True):
    """The members of a case file, in the order in which they lie there."""

    kind: Literal["custody/case-file/v1"]
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]

    def __post_init__(self) -> None:
        super().__post_init__()
        for before, after in pairwise(self.members):
            if (before.name, before.digest) >= (after.name, after.digest):
                raise ValueError(f"members: {after.name} does not come after {before.name}")


def suffix_of(name: str) -> str:
    """Return how a file's name ends, if it is a suffix that a case file takes, else ""."""
    found = _SUFFIX.search(name)
    return found[0] if found and found[0] in _LIMITS else ""


def member_name(suffix: str, data: bytes) -> str:
    """Return what a file is called in a case file; `Malformed` if it is not what it claims."""
    if suffix == ".dsse":
        entry = entry_of(decode_envelope(data))
        return f"{entry.kind}-{entry.digest}.dsse"
    return f"{_WORDS[suffix]}-{sha256(data).hex()}{suffix}"


def encode_case_file(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Write a case file from ``(suffix, bytes)`` pairs, in whatever order, each once."""
    held = {(member_name(suffix, data), sha256(data).hex()): data for suffix, data in files}
    members = tuple(
        Member(name=name, digest=digest, size_bytes=len(held[name, digest]))
        for name, digest in sorted(held)
    )
    index = encode(Index(kind="custody/case-file/v1", members=members))
    head = MAGIC + len(index).to_bytes(_LENGTH_BYTES, "big") + index
    body = b"".join((head, *(held[member.name, member.digest] for member in members)))
    if len(body) + _DIGEST_BYTES > MAX_BYTES:
        raise Malformed(f"larger than the {MAX_BYTES} bytes allowed")
    whole = body + sha256(body)
    # What nobody could read must not be written: the limits are checked by reading.
    decode_case_file(whole)
    return whole


def decode_case_file(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Read a case file: names and bytes of its members.

    Raises `Refused` (``casefile.digest``) where the file as a whole was changed, and
    (``casefile.member``, with its name) where one member was; else `Malformed`.
    """
    if len(data) > MAX_BYTES:
        raise Malformed(f"larger than the {MAX_BYTES} bytes allowed")
    if not data.startswith(MAGIC):
        raise Malformed("not a case file, or of another version")
    head = len(MAGIC) + _LENGTH_BYTES
    if len(data) < head + _DIGEST_BYTES:
        raise Malformed("ends before its index")
    view = memoryview(data)
    body, told = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if not hmac.compare_digest(sha256(body), told):
        raise Refused("changed, or cut short, since it was made", check="casefile.digest")
    size = int.from_bytes(view[len(MAGIC) : head], "big")
    if size > min(MAX_INDEX_BYTES, len(body) - head):
        raise Malformed("its index is longer than it may be, or than the file")
    index = decode(Index, bytes(view[head : head + size]), max_bytes=MAX_INDEX_BYTES)
    return _cut(index, body[head + size :])


def _cut(index: Index, rest: memoryview) -> tuple[tuple[str, bytes], ...]:
    """Cut what comes after the index into its members, each checked against the index."""
    total = sum(member.size_bytes for member in index.members)
    if total != len(rest):
        raise Malformed(f"its index tells of {total} bytes of members, and {len(rest)} are there")
    files, at = [], 0
    for member in index.members:
        suffix = suffix_of(member.name)
        if member.size_bytes > _LIMITS[suffix]:
            raise Malformed(f"larger than the {_LIMITS[suffix]} bytes allowed", where=member.name)
        data = bytes(rest[at : at + member.size_bytes])
        at += member.size_bytes
        if sha256(data).hex() != member.digest:
            raise Refused("is not what was collected", check="casefile.member", where=member.name)
        try:
            name = member_name(suffix, data)
        except Malformed as error:
            raise Malformed(error.reason, where=member.name) from error
        if name != member.name:
            raise Refused(f"is {name}", check="casefile.member", where=member.name)
        files.append((member.name, data))
    return tuple(files)
