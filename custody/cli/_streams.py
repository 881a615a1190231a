"""Output in whatever encoding a stream has: nothing that is to be said fails to be."""

from __future__ import annotations

import codecs
import io
import sys
from typing import TextIO

_HANDLER = "custody.written"
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF
_INSTEAD = {"…": "...", "\N{RIGHT SINGLE QUOTATION MARK}": "'", "–": "-", "—": "-"}


def open_streams() -> None:
    """Let stdout and stderr take every text; what their encoding lacks is written in its place."""
    codecs.register_error(_HANDLER, _write_instead)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def fitting(text: str, stream: TextIO) -> str:
    """Return a JSON text as a stream can take it: with escapes for what its encoding lacks."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        import json

        return json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _write_instead(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char, after = error.object[error.start], error.start + 1
    # A byte of a file name that is no text was read as this, and is written as that again; two
    # or four bytes are one sign elsewhere.
    if _FIRST_BYTE <= ord(char) <= _LAST_BYTE and not error.encoding.startswith(
        ("utf-16", "utf-32")
    ):
        return bytes((ord(char) - 0xDC00,)), after
    return _INSTEAD.get(char, char.encode("ascii", "backslashreplace").decode()), after
