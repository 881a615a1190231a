"""Key URIs: ``pkcs11:`` (RFC 7512) and ``tpm:``, read strictly.

::

    pkcs11:token=alice;id=share-3f9c21d07a55e810?module-name=softhsm2&pin-source=fd:3
    tpm:handle=0x81010020?tcti=swtpm:path=/run/tpm.sock

A URI names a key, it never carries a secret: RFC 7512's ``pin-value`` is refused, because a URI is
typed on a command line, where every process of the machine can read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from custody.errors import Malformed

#: Longest URI read, in characters.
MAX_URI_CHARS = 4096

_SHAPES = "as pkcs11:token=LABEL?module-name=PROFILE, or tpm: for this machine's TPM"

# RFC 7512 section 2.3: unreserved, pk11-res-avail, and what path and query allow besides.
_AVAILABLE = "-._~:[]@!$'()*+,="
_PATH_SAFE = _AVAILABLE + "&"
_QUERY_SAFE = _AVAILABLE + "/?|"
_ENCODED = re.compile(r"(?:[A-Za-z0-9]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pkcs11Uri:
    """One ``pkcs11:`` URI.  An attribute that is None matches everything (RFC 7512 section 2.6)."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_description: str | None = None
    library_version: tuple[int, int] | None = None
    slot_id: int | None = None
    slot_manufacturer: str | None = None
    slot_description: str | None = None
    object: str | None = None
    id: bytes | None = None
    type: str | None = None
    module_path: str | None = None
    module_name: str | None = None
    pin_source: str | None = None

    def __str__(self) -> str:
        return "pkcs11:" + _write(self, _PKCS11_PATH, _PKCS11_QUERY)

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TpmUri:
    """One ``tpm:`` URI.  Without ``handle`` it names the TPM, with it one persistent key.

    ``tcti`` is what tpm2-tss calls a TCTI configuration, ``NAME[:CONF]``.
    """

    handle: int | None = None
    tcti: str | None = None
    pin_source: str | None = None

    def __str__(self) -> str:
        return "tpm:" + _write(self, _TPM_PATH, _TPM_QUERY)

    def __repr__(self) -> str:
        return f"<{self}>"


KeyUri = Pkcs11Uri | TpmUri


def parse_key_uri(text: str) -> KeyUri:
    """Read one key URI; raise `Malformed` naming the attribute at fault."""
    scheme, colon, rest = text.partition(":")
    if not colon or len(text) > MAX_URI_CHARS:
        raise Malformed("not a key URI", hint=_SHAPES)
    path, _, query = rest.partition("?")
    match scheme:
        case "pkcs11":
            uri = Pkcs11Uri(**_read(path, query, _PKCS11_PATH, _PKCS11_QUERY))
            if uri.module_path is not None and uri.module_name is not None:
                raise Malformed("a key URI has module-path or module-name, not both")
            return uri
        case "tpm":
            return TpmUri(**_read(path, query, _TPM_PATH, _TPM_QUERY))
        case _:
            raise Malformed("not a key URI: its scheme is neither pkcs11 nor tpm", hint=_SHAPES)


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8")
    if "\0" in text:
        raise ValueError("has a zero byte")
    return text


def _number(raw: bytes) -> int:
    if not re.fullmatch(rb"0|[1-9][0-9]{0,19}", raw) or int(raw) >= 1 << 64:
        raise ValueError("is not a decimal number")
    return int(raw)


def _version(raw: bytes) -> tuple[int, int]:
    match = re.fullmatch(rb"([0-9]{1,3})(?:\.([0-9]{1,3}))?", raw)
    if match is None:
        raise ValueError("is not MAJOR or MAJOR.MINOR")
    return int(match[1]), int(match[2] or b"0")


def _object_type(raw: bytes) -> str:
    if raw not in (b"public", b"private", b"cert", b"secret-key", b"data"):
        raise ValueError("is none of public, private, cert, secret-key, data")
    return raw.decode()


def _absolute(raw: bytes) -> str:
    path = _text(raw)
    if not path.startswith("/"):
        raise ValueError("is not an absolute path")
    return path


def _handle(raw: bytes) -> int:
    # TPM 2.0 part 2, table 28: persistent objects are 81000000 to 81FFFFFF.
    if not re.fullmatch(rb"0x81[0-9a-f]{6}", raw):
        raise ValueError("is not a persistent handle, 0x81000000 to 0x81ffffff")
    return int(raw, 16)


_Reader = Callable[[bytes], object]
_PKCS11_PATH: Mapping[str, _Reader] = {
    "token": _text,
    "manufacturer": _text,
    "serial": _text,
    "model": _text,
    "library-manufacturer": _text,
    "library-description": _text,
    "library-version": _version,
    "slot-id": _number,
    "slot-manufacturer": _text,
    "slot-description": _text,
    "object": _text,
    "id": bytes,
    "type": _object_type,
}
_PKCS11_QUERY: Mapping[str, _Reader] = {
    "module-path": _absolute,
    "module-name": _text,
    "pin-source": _text,
}
_TPM_PATH: Mapping[str, _Reader] = {"handle": _handle}
_TPM_QUERY: Mapping[str, _Reader] = {"tcti": _text, "pin-source": _text}


# Any: the values are whatever the attribute readers of the tables above return.
def _read(
    path: str, query: str, in_path: Mapping[str, _Reader], in_query: Mapping[str, _Reader]
) -> dict[str, Any]:
    found = _attributes(path, ";", in_path, safe=_PATH_SAFE)
    return found | _attributes(query, "&", in_query, safe=_QUERY_SAFE)


def _attributes(
    part: str, separator: str, readers: Mapping[str, _Reader], *, safe: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in part.split(separator) if part else ():
        name, equals, value = item.partition("=")
        if name == "pin-value":
            raise Malformed(
                "pin-value is refused: a PIN in a URI can be read by every process",
                hint="use pin-source=fd:N, pin-source=/path/to/file, or be asked",
            )
        if not equals or name not in readers:
            raise Malformed(f"unknown attribute in key URI: {name[:40]!r}")
        field = name.replace("-", "_")
        if field in found:
            raise Malformed(f"{name} appears twice in key URI")
        bare = value.translate({ord(char): None for char in safe})
        if not _ENCODED.fullmatch(bare):
            raise Malformed(f"{name} has characters that must be percent-encoded")
        try:
            found[field] = readers[name](unquote_to_bytes(value))
        except ValueError as error:
            words = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise Malformed(f"{name} {words}") from error
    return found


def _write(uri: KeyUri, in_path: Mapping[str, _Reader], in_query: Mapping[str, _Reader]) -> str:
    values = {field.name.replace("_", "-"): getattr(uri, field.name) for field in fields(uri)}
    path = [_pair(name, values[name], safe="") for name in in_path if values[name] is not None]
    query = [
        _pair(name, values[name], safe=":/,=") for name in in_query if values[name] is not None
    ]
    return ";".join(path) + ("?" + "&".join(query) if query else "")


def _pair(name: str, value: object, *, safe: str) -> str:
    if name == "handle":
        return f"handle=0x{value:08x}"
    if isinstance(value, tuple):
        return f"{name}={value[0]}.{value[1]}"
    return f"{name}={quote(value if isinstance(value, bytes) else str(value), safe=safe)}"
