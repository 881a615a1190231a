"""The example of disposal.md, and what no reader takes.

Everything follows from words (`fixed`), so that ``python -m tests.unit.formats.disposal_examples``
writes the same files and the same block wherever it runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from custody import formats
from custody.encoding import key_id
from custody.formats.disposal import Disposal
from custody.formats.envelope import (
    Signature,
    decode_envelope,
    encode_statement,
    signing_bytes,
    statement_digest,
)
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki

DOCUMENT = Path(formats.__file__).parent / "disposal.md"
VECTORS = Path(__file__).parents[2] / "vectors" / "disposal"
BLOCK = re.compile(r"^```json disposal=example\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIGEST = re.compile(r"Its digest is `[^`]*`")


def said() -> Disposal:
    """What the example says."""
    return Disposal(
        environment=octets("an environment").hex(),
        manifest=octets("a manifest").hex(),
        replaced_by=octets("its successor").hex(),
        destroyed=("bundle", "record"),
        destroyed_bytes=83_886_080,
        disposed_at=datetime(2027, 1, 9, 8, 0, tzinfo=UTC),
    )


def example() -> bytes:
    """The statement's file."""
    signature = Signature(keyid=key_id(spki("lab")), sig=sign("lab", signing_bytes(said())))
    return encode_statement(said(), [signature])


def block() -> str:
    """The document's block."""
    return lay_out(json.loads(decode_envelope(example()).payload)) + "\n"


def malformed() -> Iterator[tuple[str, str, bytes]]:
    """What no reader takes: comment, part of the reason, file."""
    payload = decode_envelope(example()).payload
    for comment, reason, old, new in (
        ("nothing was destroyed", "length >= 1", b'["bundle","record"]', b"[]"),
        ("out of order", "not in order", b'["bundle","record"]', b'["record","bundle"]'),
        ("twice", "not in order", b'["bundle","record"]', b'["bundle","bundle"]'),
        ("something else was destroyed", "Invalid enum", b'"record"]', b'"everything"]'),
        ("bytes below none", "Expected `int` >= 0", b":83886080", b":-1"),
        ("a replacement that is no digest", "64 lower-case", b'"replacedBy":"', b'"replacedBy":"x'),
        ("another field", "unknown field", b'"destroyed":', b'"because":"","destroyed":'),
        ("about another manifest", "subject does not follow", b'"sha256":"', b'"sha256":"' + b"0"),
    ):
        changed = payload.replace(old, new, 1)
        if comment.startswith("about"):
            digest = said().manifest.encode()
            changed = payload.replace(b'"sha256":"' + digest, b'"sha256":"' + b"0" * 64, 1)
        yield comment, reason, _enveloped(changed)


def _enveloped(payload: bytes) -> bytes:
    held = json.loads(example())
    held["payload"] = base64.b64encode(payload).decode()
    return json.dumps(held, sort_keys=True, separators=(",", ":")).encode()


def vectors() -> str:
    """The text of ``malformed.txt``."""
    blocks = [
        f"comment: {comment}\nreason: {reason}\nfile: {base64.b64encode(data).decode()}\n"
        for comment, reason, data in malformed()
    ]
    return "# What no reader of disposals takes.\n\n" + "\n".join(blocks)


def written(text: str) -> str:
    """Put the block and the digest into their places."""
    text = BLOCK.sub(lambda _: f"```json disposal=example\n{block()}```", text)
    return _DIGEST.sub(f"Its digest is `{statement_digest(said())}`", text)


def main() -> None:
    """Write the files, and the block of the document."""
    VECTORS.mkdir(exist_ok=True)
    (VECTORS / "example.dsse").write_bytes(example())
    (VECTORS / "malformed.txt").write_text(vectors())
    DOCUMENT.write_text(written(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
