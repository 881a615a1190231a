"""The examples of keybackup.md, and what no reader takes.

The RSA key and what it sealed are fixed bytes of the right sizes: these are documents, and
tests/device/test_backup.py opens real ones.  ``python -m tests.unit.formats.keybackup_examples``
writes the same files wherever it runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from custody import formats
from custody.encoding import key_id
from custody.formats.envelope import (
    Predicate,
    Signature,
    decode_envelope,
    encode_statement,
    signing_bytes,
)
from custody.formats.keybackup import (
    HeldIn,
    KeyAttribute,
    KeyBackup,
    SealedWrappingKey,
    WrappingKey,
)
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki

DOCUMENT = Path(formats.__file__).parent / "keybackup.md"
VECTORS = Path(__file__).parents[2] / "vectors" / "keybackup"
BLOCK = re.compile(r"^```json (\w+)=example\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MADE = datetime(2027, 1, 9, 8, 0, tzinfo=UTC)
#: A modulus of 4096 bits that nobody can factor, for it was drawn and not made.
_RSA_HEAD = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
_FALSE = ("COPYABLE", "DECRYPT", "DERIVE", "DESTROYABLE", "ENCRYPT", "MODIFIABLE")
_TRUE = ("ALWAYS_SENSITIVE", "EXTRACTABLE", "LOCAL", "PRIVATE", "SENSITIVE", "TOKEN", "UNWRAP")


def _long(words: str, size: int) -> bytes:
    return b"".join(octets(f"{words} {n}") for n in range(-(-size // 32)))[:size]


def wrapping() -> SealedWrappingKey:
    """A wrapping key."""
    modulus = bytes([0xC0 | octets("top")[0]]) + _long("a modulus", 511)
    return SealedWrappingKey(
        spki=_RSA_HEAD + modulus + bytes.fromhex("0203010001"),
        salt=octets("a salt"),
        sealed=_long("a sealed key", 2390),
    )


def wrapping_key() -> WrappingKey:
    """The statement about it."""
    return WrappingKey(
        environment="production",
        record=octets("a recovery record").hex(),
        key=wrapping(),
        proof=sign("a recovery key", b"a proof"),
        made_at=_MADE,
    )


def backup() -> KeyBackup:
    """The backup of a KEK."""
    flags = dict.fromkeys(_FALSE, "false")
    flags |= dict.fromkeys((*_TRUE, "WRAP", "WRAP_WITH_TRUSTED"), "true")
    flags |= dict.fromkeys(("NEVER_EXTRACTABLE", "SIGN", "VERIFY"), "false")
    flags |= {
        "ALLOWED_MECHANISMS": "AES_KEY_WRAP",
        "CLASS": "SECRET_KEY",
        "ID": b"kek-0123456789abcdef".hex(),
        "KEY_TYPE": "AES",
        "LABEL": "site",
    }
    return KeyBackup(
        environment="production",
        record=octets("a recovery record").hex(),
        wrapping=wrapping(),
        role="kek",
        label="site",
        id=b"kek-0123456789abcdef",
        check=octets("a check value").hex(),
        spki=None,
        attributes=tuple(KeyAttribute(name=n, value=v) for n, v in sorted(flags.items())),
        oaep_hash="sha1",
        wrapped=_long("a wrapped key", 512),
        carrier=None,
        carried=None,
        held_in=HeldIn(
            label="site hsm",
            manufacturer="SoftHSM project",
            model="SoftHSM v2",
            serial="0123456789abcdef",
        ),
        made_at=_MADE,
    )


def authority() -> KeyBackup:
    """The backup of an authority's key."""
    public = spki("an authority")
    return replace(
        backup(),
        role="ca",
        check=key_id(public),
        spki=public,
        carrier="AES_KEY_WRAP_PAD",
        carried=_long("a carried key", 88),
    )


def file_of(said: Predicate) -> bytes:
    """A statement's file."""
    signature = Signature(keyid=key_id(spki("lab")), sig=sign("lab", signing_bytes(said)))
    return encode_statement(said, [signature])


def files() -> dict[str, bytes]:
    """By their names in the document."""
    return {"wrapping": file_of(wrapping_key()), "backup": file_of(backup())}


def malformed() -> Iterator[tuple[str, str, bytes]]:
    """What no reader takes: comment, part of the reason, file."""
    payload = decode_envelope(file_of(backup())).payload
    b64 = base64.b64encode(backup().wrapped)
    swapped = b'{"name":"CLASS","value":"SECRET_KEY"},{"name":"ALLOWED_MECHANISMS",'
    ordered = b'{"name":"ALLOWED_MECHANISMS",'
    for comment, reason, old, new in (
        ("a wrapped key of another size", "length", b64, b64[4:]),
        ("another role", "Invalid enum", b'"role":"kek"', b'"role":"log"'),
        ("a KEK with a public half", "spki:", b'"spki":null', b'"spki":"MFkw"'),
        ("a KEK that is carried", "carried:", b'"carried":null', b'"carried":"' + b64 + b'"'),
        ("carried by another mechanism", "enum", b'"carrier":null', b'"carrier":"AES_CBC"'),
        ("attributes out of order", "not in order", ordered, swapped),
        ("another hash", "Invalid enum", b'"oaepHash":"sha1"', b'"oaepHash":"md5"'),
        ("an attribute that is a number", "Expected", b'"value":"AES"', b'"value":31'),
        ("an attribute without a name", "regex", b'"name":"LABEL"', b'"name":""'),
        ("another field", "unknown field", b'"label":"site","', b'"label":"site","pin":"","'),
        ("no id", "length", b'"id":"' + base64.b64encode(backup().id) + b'"', b'"id":""'),
        (
            "about another key",
            "subject does not follow",
            b'"sha256":"' + backup().check.encode(),
            b'"sha256":"' + b"0" * 64,
        ),
    ):
        assert old in payload, comment
        changed = payload.replace(old, new, 1)
        yield comment, reason, _enveloped(changed)


def _enveloped(payload: bytes) -> bytes:
    held = json.loads(file_of(backup()))
    held["payload"] = base64.b64encode(payload).decode()
    return json.dumps(held, sort_keys=True, separators=(",", ":")).encode()


def vectors() -> str:
    """The text of ``malformed.txt``."""
    blocks = [
        f"comment: {comment}\nreason: {reason}\nfile: {base64.b64encode(data).decode()}\n"
        for comment, reason, data in malformed()
    ]
    return "# What no reader of key backups takes.\n\n" + "\n".join(blocks)


def _shown(data: bytes) -> str:
    """A payload laid out, with the middle of what is long left out of sight."""
    text = lay_out(json.loads(decode_envelope(data).payload)) + "\n"
    return re.sub(r'"([A-Za-z0-9+/]{40})[A-Za-z0-9+/=]{200,}"', r'"\1…"', text)


def written(text: str) -> str:
    """Put blocks and digests into their places."""
    made = files()
    text = BLOCK.sub(lambda m: f"```json {m[1]}=example\n{_shown(made[m[1]])}```", text)
    for name, data in made.items():
        place = re.compile(
            rf"(```json {name}=example\n.*?^```\n\nIts digest is `)[^`]*", re.MULTILINE | re.DOTALL
        )
        text = place.sub(rf"\g<1>{decode_envelope(data).digest()}", text, count=1)
    return text


def main() -> None:
    """Write the files, and the blocks of the document."""
    VECTORS.mkdir(exist_ok=True)
    (VECTORS / "wrapping-key.dsse").write_bytes(files()["wrapping"])
    (VECTORS / "key-backup.dsse").write_bytes(files()["backup"])
    (VECTORS / "authority-backup.dsse").write_bytes(file_of(authority()))
    (VECTORS / "malformed.txt").write_text(vectors())
    DOCUMENT.write_text(written(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
