"""The example of casefile.md, and what no reader takes: two denials in one file.

Everything follows from words (`fixed`), so that ``python -m tests.unit.formats.casefile_examples``
writes the same files and the same blocks wherever it runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from custody import formats
from custody.encoding import encode, key_id, sha256
from custody.formats.approval import Denial
from custody.formats.casefile import MAGIC, Index, Member, decode_case_file, encode_case_file
from custody.formats.envelope import Signature, encode_statement, signing_bytes
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki

DOCUMENT = Path(formats.__file__).parent / "casefile.md"
VECTORS = Path(__file__).parents[2] / "vectors" / "casefile"
BLOCK = re.compile(r"^```text casefile=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_AT = datetime(2027, 1, 5, 12, 0, tzinfo=UTC)


def denial(who: str, reason: str, *, by: str | None = None) -> bytes:
    """A denial by one officer; ``by`` is another who signs it in his place."""
    said = Denial(
        author=key_id(spki(who)),
        request=octets("a request").hex(),
        manifest=octets("a manifest").hex(),
        policy=octets("a policy").hex(),
        terms=octets("terms").hex(),
        reason=reason,
        denied_at=_AT,
    )
    signer = by or who
    signature = Signature(keyid=key_id(spki(signer)), sig=sign(signer, signing_bytes(said)))
    return encode_statement(said, [signature])


@cache
def members() -> tuple[tuple[str, bytes], ...]:
    """Two denials, by suffix."""
    return ((".dsse", denial("alice", "not yet")), (".dsse", denial("bob", "nor I")))


@cache
def whole() -> bytes:
    """The case file."""
    return encode_case_file(members())


def index() -> tuple[Index, bytes]:
    """Its index, and the bytes of it."""
    size = int.from_bytes(whole()[len(MAGIC) : len(MAGIC) + 8], "big")
    data = whole()[len(MAGIC) + 8 :][:size]
    return _index_of(whole()), data


def _index_of(data: bytes) -> Index:
    found = decode_case_file(data)
    return Index(
        kind="custody/case-file/v1",
        members=tuple(
            Member(name=name, digest=sha256(held).hex(), size_bytes=len(held))
            for name, held in found
        ),
    )


def blocks() -> dict[str, str]:
    """Every block of the document by its name."""
    read, data = index()
    first = read.members[0].size_bytes
    at = len(MAGIC) + 8 + len(data)
    sizes = (
        (0, len(MAGIC), 'magic: "custody case file 1" and a newline'),
        (len(MAGIC), 8, f"length of the index: {len(data):016x}"),
        (len(MAGIC) + 8, len(data), "index"),
        (at, first, read.members[0].name[:23] + "….dsse"),
        (at + first, read.members[1].size_bytes, read.members[1].name[:23] + "….dsse"),
        (len(whole()) - 32, 32, "SHA-256 of all before"),
    )
    lines = [f"{start:6} {size:6}  {words}" for start, size, words in sizes]
    return {
        "layout": "\n".join(["offset  bytes  what", *lines, "", whole()[-32:].hex()]) + "\n",
        "index": lay_out(json.loads(data)) + "\n",
    }


def remade(change: Callable[[Index], object], bodies: bytes | None = None) -> bytes:
    """Write the example with another index, and its digest made to fit."""
    read, data = index()
    rest = whole()[len(MAGIC) + 8 + len(data) : -32]
    changed = change(read)
    written = changed if isinstance(changed, bytes) else encode(changed)
    body = MAGIC + len(written).to_bytes(8, "big") + written + (rest if bodies is None else bodies)
    return body + sha256(body)


def malformed() -> Iterator[tuple[str, str, bytes]]:
    """What no reader takes: comment, part of the reason, bytes."""
    good, (read, data) = whole(), index()
    one, two = read.members
    (_, first), (_, second) = decode_case_file(good)

    def members_are(*found: Member, kind: str = read.kind) -> Callable[[Index], bytes]:
        listed = {"kind": kind, "members": found}
        return lambda _: encode(listed)

    def other(member: Member, **changes: object) -> dict[str, object]:
        return {"digest": member.digest, "name": member.name, "sizeBytes": member.size_bytes} | (
            changes
        )

    yield "nothing", "not a case file", b""
    yield "the magic of another version", "not a case file", good.replace(b"file 1", b"file 2", 1)
    yield "the magic alone", "ends before its index", MAGIC
    yield "a byte less", "changed, or cut short", good[:-1]
    yield "a byte more", "changed, or cut short", good + b"\0"
    yield "another outer digest", "changed, or cut short", good[:-32] + bytes(32)
    huge = MAGIC + b"\xff" * 8 + good[len(MAGIC) + 8 : -32]
    yield "an index of 2^64 - 1 bytes", "its index is longer", huge + sha256(huge)
    yield "white space in the index", "not in canonical form", remade(lambda _: data + b" ")
    yield "no members", "length >= 1", remade(members_are())
    yield (
        "another kind",
        "its kind is custody/x/v1",
        remade(members_are(one, two, kind="custody/x/v1")),
    )
    yield "members out of order", "does not come after", remade(members_are(two, one))
    yield "a member twice", "does not come after", remade(members_are(one, one), first + first)
    yield "a member less in the index", "are there", remade(members_are(one))
    yield "a member less among the bytes", "are there", remade(members_are(one, two), first)
    yield (
        "two members that have changed places",
        "is not what was collected",
        remade(members_are(one, two), second + first),
    )
    longer = other(one, sizeBytes=one.size_bytes + 1), other(two, sizeBytes=two.size_bytes - 1)
    yield (
        "a border moved by a byte",
        "is not what was collected",
        remade(lambda _: encode({"kind": read.kind, "members": longer})),
    )
    swapped = other(one, digest=two.digest, sizeBytes=two.size_bytes)
    swapped_two = other(two, digest=one.digest, sizeBytes=one.size_bytes)
    yield (
        "two members under each other's names",
        f"is {two.name}",
        remade(
            lambda _: encode({"kind": read.kind, "members": [swapped, swapped_two]}), second + first
        ),
    )
    for comment, name in (
        ("a name that leads elsewhere", f"../denial-{'ab' * 32}.dsse"),
        ("a suffix that no case has", one.name.replace(".dsse", ".exe")),
        ("a digest in capitals", one.name.upper().replace("DENIAL", "denial")[:-4] + "dsse"),
    ):
        renamed = other(one, name=name)
        yield (
            comment,
            "Expected",
            remade(lambda _, r=renamed: encode({"kind": read.kind, "members": [r]}), first),  # type: ignore[misc]
        )
    lie = other(one, name=one.name.replace("denial", "burn"))
    yield (
        "a denial that is called a burn receipt",
        f"is {one.name}",
        remade(lambda _: encode({"kind": read.kind, "members": [lie]}), first),
    )
    empty = other(one, sizeBytes=0)
    yield (
        "a member of no bytes",
        "Expected `int` >= 1",
        remade(lambda _: encode({"kind": read.kind, "members": [empty]}), b""),
    )
    big = {"name": f"certificate-{'ab' * 32}.cer", "digest": "ab" * 32, "sizeBytes": 65537}
    yield (
        "a certificate of 64 KiB and a byte",
        "larger than the 65536 bytes",
        remade(lambda _: encode({"kind": read.kind, "members": [big]}), bytes(65537)),
    )
    junk = b'{"payload":"e30="}'
    spoilt = other(one, digest=sha256(junk).hex(), sizeBytes=len(junk))
    yield (
        "a statement that is none",
        "not a valid envelope",
        remade(lambda _: encode({"kind": read.kind, "members": [spoilt]}), junk),
    )


def vectors() -> str:
    """The text of ``malformed.txt``."""
    written = [
        "# What no reader of case files takes.  reason: part of the reason given; file: base64.",
    ]
    for comment, reason, data in malformed():
        stored = base64.b64encode(data if len(data) < 8192 else b"").decode()
        where = f"file: {stored}" if len(data) < 8192 else f"made: {comment}"
        written.append(f"\ncomment: {comment}\nreason: {reason}\n{where}".rstrip())
    return "\n".join(written) + "\n"


def main() -> None:
    """Write the files, and put the blocks of the document into their places."""
    (VECTORS / "example.case").write_bytes(whole())
    (VECTORS / "malformed.txt").write_text(vectors())
    text, made = DOCUMENT.read_text(), blocks()
    DOCUMENT.write_text(BLOCK.sub(lambda m: f"```text casefile={m[1]}\n{made[m[1]]}```", text))


if __name__ == "__main__":
    main()
