"""Signed notes.  Format: C2SP signed-note; checkpoint.md, "Notes".

A note is text, an empty line, and one line per signature.  Nothing in it is verified until
`Note.by` is asked about a key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from custody.crypto.notekeys import NoteKey, check_name, from_base64, to_base64
from custody.errors import Malformed

#: Sixteen post-quantum signatures and more fit (signed-note asks for sixteen).
MAX_NOTE_BYTES = 256 << 10
MAX_SIGNATURES = 64
_DASH = "\N{EM DASH} "
_KEY_ID_BYTES = 4


class NoteSignature(msgspec.Struct, frozen=True):
    """One signature line.  ``key_id`` (4 bytes) and ``name`` say whose it claims to be."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Write the line, with its newline."""
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"

    def claims(self, key: NoteKey) -> bool:
        """Whether this is, or pretends to be, a signature by ``key``."""
        return self.name == key.name and self.key_id == key.id


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and who is said to have signed it."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def by(self, key: NoteKey) -> tuple[int | None, ...]:
        """Verify every signature that claims to be by ``key``; return the time that each states.

        Empty: the key did not sign.  A wrong signature in its name is `Refused`
        (``note.signature``), even beside a right one.
        """
        text = self.text.encode()
        mine = (line for line in self.signatures if line.claims(key))
        return tuple(key.verify(text, line.signature) for line in mine)

    def with_signatures(self, *more: NoteSignature) -> Note:
        """Return this note with lines added that it does not have."""
        new = tuple(line for line in dict.fromkeys(more) if line not in self.signatures)
        return replace(self, signatures=(*self.signatures, *new))


def signature_by(key: NoteKey, signature: bytes) -> NoteSignature:
    """Make the line for a signature that ``key`` made."""
    return NoteSignature(key.name, key.id, signature)


def encode_note(note: Note) -> bytes:
    """Write a note as `decode_note` reads it."""
    return (note.text + "\n" + "".join(line.line() for line in note.signatures)).encode()


def decode_note(data: bytes, *, max_bytes: int = MAX_NOTE_BYTES) -> Note:
    """Read a note, whoever signed it."""
    if len(data) > max_bytes:
        raise Malformed(f"larger than the {max_bytes} bytes allowed")
    whole = decode_text(data)
    # The text may hold empty lines itself: the last one is the border.
    text, border, lines = whole.rpartition("\n\n")
    if not border:
        raise Malformed("not a signed note: no empty line before signatures")
    return Note(text + "\n", decode_signatures(lines))


def decode_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Read one or more signature lines."""
    *whole, rest = lines.split("\n")
    if rest or not whole:
        raise Malformed("not a signed note: no signature line, or one without its newline")
    if len(whole) > MAX_SIGNATURES:
        raise Malformed(f"more than {MAX_SIGNATURES} signatures")
    return tuple(_decode_signature(line) for line in whole)


def decode_text(data: bytes) -> str:
    """Read UTF-8 without any control characters but newlines."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8") from error
    if any(char < " " and char != "\n" for char in text):
        raise Malformed("has a control character")
    return text


def _decode_signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise Malformed("not a signature line")
    check_name(name)
    data = from_base64(encoded)
    if len(data) <= _KEY_ID_BYTES:
        raise Malformed("a signature line without a signature")
    return NoteSignature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])
