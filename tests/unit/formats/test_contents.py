"""The contents of a bundle: strict both ways, and no name that could hurt anybody."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody import formats
from custody.encoding import encode
from custody.errors import Malformed
from custody.formats.contents import (
    Base,
    Contents,
    File,
    Taken,
    check_names,
    decode_padded,
    encode_padded,
    padded_size,
)
from tests.unit.formats.test_parts import PLAINTEXT

SPECIFICATION = (Path(formats.__file__).parent / "contents.md").read_text(encoding="utf-8")


#: Takes the first byte, wherever it is.
BASE = Base(
    manifest="11" * 32,
    files=("a",),
    taken=(Taken(offset=0, size_bytes=1, file=0, file_offset=0),),
)


def _file(name: str, size: int = 1, offset: int = 0) -> File:
    return File(name=name, size_bytes=size, sha256="00" * 32, offset=offset)


def _contents(*files: File, **fields: Any) -> Contents:
    given_fields: dict[str, Any] = {
        "kind": "custody/contents/v1",
        "name": "m",
        "version": "1",
        "notes": "",
        "model_signature": b"{}",
        "files": files or (_file("a"),),
        "part_digests": None,
        "base": None,
        "frames": None,
    }
    return Contents(**(given_fields | fields))


def _padded(body: bytes, extra: bytes = b"") -> bytes:
    return len(body).to_bytes(8, "big") + body + extra


def test_worked_example() -> None:
    """The specification's example is what the program writes, byte for byte."""
    weights, config = PLAINTEXT[0], PLAINTEXT[1].rstrip(b"\0")
    contents = _contents(
        File(
            name="config.json",
            size_bytes=len(config),
            sha256=hashlib.sha256(config).hexdigest(),
            offset=len(weights),
        ),
        File(
            name="weights",
            size_bytes=len(weights),
            sha256=hashlib.sha256(weights).hexdigest(),
            offset=0,
        ),
        name="two-layer demo",
        version="1.0",
    )
    found = re.search(r"```json\n(.*?)\n```", SPECIFICATION, re.DOTALL)
    assert found is not None
    assert re.sub(r"\n *", "", found[1]) == encode(contents).decode()
    padded = encode_padded(contents, padded_size(contents))
    assert f"{len(padded):,} bytes" in SPECIFICATION
    assert f"{padded[:8].hex()} {padded[8:24].hex()} …" in SPECIFICATION
    assert f"{len(padded) - 8 - len(encode(contents)):,} zeros" in SPECIFICATION


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> tuple[File, ...]:
    """Draw a file table that follows the rules."""
    names = sorted(draw(st.sets(NAMES, min_size=1, max_size=6)))
    try:
        check_names(names)
    except ValueError:
        assume(False)
    files: list[File] = []
    end = 0
    for name in draw(st.permutations(names)):
        size = draw(st.integers(0, 1 << 40))
        end += draw(st.integers(0, 1 << 20))
        digest = draw(st.binary(min_size=32, max_size=32)).hex()
        files.append(File(name=name, size_bytes=size, sha256=digest, offset=end))
        end += size
    return tuple(sorted(files, key=lambda file: file.name))


@given(tables(), st.text(max_size=40), st.binary(max_size=3).map(lambda b: b * 32))
def test_reads_what_was_written(files: tuple[File, ...], notes: str, digests: bytes) -> None:
    """Decoding gives back what was encoded, whatever the padding."""
    contents = _contents(*files, notes=notes)
    if digests and contents.end:
        contents = replace(contents, base=BASE, part_digests=digests)
    for size in (8 + len(encode(contents)), 1 << 16):
        padded = encode_padded(contents, size)
        assert size == len(padded)
        assert contents == decode_padded(padded)
    assert max(f.offset + f.size_bytes for f in files) == contents.end


@given(st.data())
def test_one_byte_changed_is_refused_or_shown(data: st.DataObject) -> None:
    """A changed byte is malformed, or reads as other contents; nothing is read two ways."""
    contents = _contents(_file("a", 3), _file("b", 2, 3), notes="n")
    padded = bytearray(encode_padded(contents, 1000))
    position = data.draw(st.integers(0, len(padded) - 1))
    padded[position] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_padded(bytes(padded))
    except Malformed:
        return
    assert contents != found
    assert bytes(padded) == encode_padded(found, 1000)


@given(st.binary(max_size=300))
def test_junk_is_malformed(data: bytes) -> None:
    """Random bytes are malformed and nothing else."""
    for junk in (data, _padded(data)):
        with pytest.raises(Malformed):
            decode_padded(junk)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        _padded(encode(_contents()), b"\0\1"),
        _padded(encode(_contents()))[:-1],
        (1 << 63).to_bytes(8, "big") + bytes(64),
        _padded(encode(_contents()) + b" "),
        _padded(encode(_contents()).replace(b'"name":"m"', b'"name":"m","name":"m"')),
        _padded(encode(_contents()).replace(b'"notes":"",', b"")),
        _padded(encode(_contents()).replace(b'"notes":""', b'"notes":"","other":1')),
        _padded(encode(_contents()).replace(b"e30=", b"e30")),
        _padded(encode(_contents()).replace(b"e30=", b"e31=")),
        _padded(encode(_contents()).replace(b"contents/v1", b"contents/v2")),
        _padded(encode(_contents()).replace(b'"m"', b'"\xff"')),
        _padded(encode(_contents()).replace(b'"offset":0', b'"offset":-1')),
        _padded(encode(_contents()).replace(b'"offset":0', b'"offset":9223372036854775808')),
        _padded(encode(_contents()).replace(b'"offset":0', b'"offset":0.0')),
    ],
    ids=[
        "empty",
        "no length",
        "padding not zeros",
        "cut",
        "impossible length",
        "white space",
        "duplicate key",
        "missing field",
        "unknown field",
        "base64 without padding",
        "base64 with spare bits",
        "other version",
        "not UTF-8",
        "negative offset",
        "offset past 2**63",
        "offset a float",
    ],
)
def test_bad_contents_are_malformed(data: bytes) -> None:
    """Contents that are not exactly what would be written are malformed."""
    with pytest.raises(Malformed):
        decode_padded(data)


def test_padding_too_small() -> None:
    """Contents are never cut to fit."""
    with pytest.raises(ValueError, match="do not fit"):
        encode_padded(_contents(), 100)


@pytest.mark.parametrize(
    "files",
    [
        (_file("a", 2), _file("b", 1, 1)),
        (_file("a", 5), _file("b", 1, 2)),
        (_file("a", 1, 1), _file("b", 3)),
        (_file("a", 1), _file("b", 1)),
    ],
    ids=["tail", "inside", "later name first", "same place"],
)
def test_overlapping_files_are_refused(files: tuple[File, ...]) -> None:
    """No byte of a payload belongs to two files."""
    with pytest.raises(ValueError, match="overlap"):
        _contents(*files)


def test_empty_files_lie_anywhere() -> None:
    """A file without a byte overlaps nothing."""
    files = (_file("a", 0, 1), _file("b", 3), _file("c", 0, 3), _file("d", 0, 0))
    assert 3 == _contents(*files).end


@pytest.mark.parametrize(
    ("base", "digests"),
    [(BASE, None), (BASE, bytes(31)), (BASE, bytes(33)), (None, bytes(32))],
    ids=["none", "short", "half", "of no base"],
)
def test_digests_are_of_what_is_taken(base: Base | None, digests: bytes | None) -> None:
    """Plaintext digests have 32 bytes each, and are there exactly where there is a base."""
    with pytest.raises(ValueError, match="partDigests"):
        _contents(base=base, part_digests=digests)


def test_no_digests_are_malformed() -> None:
    """Where there is a base at least one part is taken, and has a digest."""
    with pytest.raises(Malformed):
        decode_padded(_padded(encode(_contents(base=BASE, part_digests=b""))))
    assert decode_padded(_padded(encode(_contents(base=BASE, part_digests=bytes(32))))).base


@pytest.mark.parametrize(
    "names",
    [
        ["/a"],
        ["a/"],
        ["a//b"],
        ["."],
        ["./a"],
        [".."],
        ["a/../b"],
        ["a/.."],
        [""],
        ["a\\b"],
        ["a\0"],
        ["a\nb"],
        ["a\x7f"],
        ["\ud800"],
        ["n" * 256],
        ["é" * 128],
        ["a", "a"],
        ["b", "a"],
        ["A", "a"],
        ["A/x", "a/y"],
        ["a", "a/x"],
        ["A", "a/x"],
        ["Straße", "strasse"],
        ["e\u0301", "é"],
        ["É", "e\u0301"],
        ["\u1e9e", "ss"],
        ["\u0345", "\u03b9"],
    ],
    ids=ascii,
)
def test_dangerous_names_are_refused(names: list[str]) -> None:
    """A name that leaves the directory, or meets another on some disk, is refused."""
    with pytest.raises(ValueError, match=r"^files: "):
        check_names(names)


@pytest.mark.parametrize(
    "names",
    [
        ["n" * 255],
        ["é" * 127],
        ["..."],
        [".hidden", "a b", "a.b/c", "a/b/c/d", "~", "…", "語"],
        ["a-b", "a/b", "a0b"],
        ["A/x", "A/y", "A/z/1"],
    ],
    ids=ascii,
)
def test_ordinary_names_are_taken(names: list[str]) -> None:
    """Long, hidden, foreign and deep names are taken."""
    check_names(names)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_taken_names_stay_apart_and_inside(names: list[str]) -> None:
    """Whatever names are taken, no two are one file where case is folded, and none is outside."""
    try:
        check_names(names)
    except ValueError:
        return
    assert len(names) == len({name.casefold() for name in names})
    for name in names:
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts
        assert name == str(Path(name))


def test_part_digests_are_base64() -> None:
    """Digests travel as base64 of their bytes in order."""
    digests = bytes(range(64))
    contents = _contents(base=BASE, part_digests=digests)
    document = msgspec.json.decode(encode(contents))
    assert base64.b64encode(digests).decode() == document["partDigests"]
    assert digests[32:] == contents.taken_digest(1)
