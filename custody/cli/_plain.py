"""Values of the command line that are what they look like: read at once.

typer reads every value, even one that was not given, by pydantic, whose import takes as long as
all the rest of a short command.  A text, a path, a number within its bounds or one of some words
needs none of that.  Whatever is not plainly good is left to typer: it refuses in its own words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_MOST_DIGITS = 18
#: What a value is that typer must look at.
_UNCLEAR = object()


def read_plainly(params: list[Any]) -> list[Any]:
    """Let parameters of typer's read their plain values without pydantic; return them."""
    for param in params:
        # Where a version of typer keeps no reader there it is left as it is: slower, no different.
        if getattr(param, "_runtime_param", param) is None:
            param._runtime_param = _Reader()  # noqa: SLF001 - the place typer makes its own in
    return params


class _Reader:
    """Reads a parameter's value in the place of typer's own reader.  Any: typer's private types."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value as the command takes it."""
        read = _read(value, param)
        if read is not _UNCLEAR:
            return read
        param._runtime_param = None  # noqa: SLF001 - typer makes its own then
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _read(value: Any, param: Any) -> Any:
    several = param.multiple or param.nargs == -1
    if value is None:
        return () if several else None
    kind, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
    if not several:
        return _read_one(value, kind, info) if param.nargs == 1 else _UNCLEAR
    if get_origin(kind) is not list or not isinstance(value, (list, tuple)):
        return _UNCLEAR
    read = [_read_one(item, get_args(kind)[0], info) for item in value]
    return _UNCLEAR if _UNCLEAR in read else read


def _read_one(value: Any, kind: Any, info: Any) -> Any:
    if info.parser is not None:
        return _UNCLEAR
    if kind is int:
        return _read_number(value, info)
    if not isinstance(value, str) or not _is_text(value):
        return _UNCLEAR
    if kind is Path:
        return _read_path(value, info)
    if kind is str:
        return value
    if get_origin(kind) is Literal and info.case_sensitive:
        return _read_word(value, get_args(kind))
    return _UNCLEAR


def _is_text(value: str) -> bool:
    # A name that is no UTF-8 comes as lone surrogates.
    return value.isascii() or all(not 0xD800 <= ord(char) <= 0xDFFF for char in value)


def _read_number(value: Any, info: Any) -> Any:
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS):
            return _UNCLEAR
        value = int(value)
    if type(value) is not int or info.clamp:
        return _UNCLEAR
    low = info.min is None or value >= info.min
    high = info.max is None or value <= info.max
    return value if low and high else _UNCLEAR


def _read_word(value: str, words: Sequence[Any]) -> Any:
    return value if value in words else _UNCLEAR


def _read_path(value: str, info: Any) -> Any:
    if info.resolve_path or info.allow_dash or info.writable or info.path_type is not None:
        return _UNCLEAR
    if not (info.file_okay and info.dir_okay):
        return _UNCLEAR
    path = Path(value)
    try:
        path.stat()
    except OSError:
        return _UNCLEAR if info.exists else path
    except ValueError:
        return _UNCLEAR
    return _UNCLEAR if info.readable and not os.access(path, os.R_OK) else path
