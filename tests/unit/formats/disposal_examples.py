"""The examples of disposal.md and forgotten.md, and what no reader takes.

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
from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.formats.disposal import Disposal
from custody.formats.envelope import (
    Signature,
    decode_envelope,
    encode_statement,
    signing_bytes,
    statement_digest,
)
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    Attest,
    ClockInfo,
    NvCertified,
    counter_public,
    name,
    nv_name,
    pack_quote,
    qualified_name,
)
from custody.formats.forgotten import Forgotten
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki
from tests.unit.formats.spec_examples import AK, FIRMWARE, tpm_signature

DOCUMENTS = Path(formats.__file__).parent
DOCUMENT = DOCUMENTS / "disposal.md"
FORGOTTEN = DOCUMENTS / "forgotten.md"
VECTORS = Path(__file__).parents[2] / "vectors" / "disposal"
FORGOTTEN_VECTOR = Path(__file__).parents[2] / "vectors" / "forgotten" / "example.dsse"
BLOCK = re.compile(r"^```json (\w+)=example\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


def forgot() -> Forgotten:
    """What the host says of a key that it kept."""
    return Forgotten(
        request=octets("a request").hex(),
        manifest=octets("a manifest").hex(),
        counter_index=0x01800C10,
        counter=4,
        forgotten_at=datetime(2027, 1, 9, 9, 0, tzinfo=UTC),
    )


def forgotten(said: Forgotten, *, value: int = 5, index: int = 0x01800C10) -> bytes:
    """Have the AK of spec_examples certify a counter, over a statement."""
    attest = Attest(
        signer=qualified_name(RH_ENDORSEMENT, name(AK)),
        extra_data=bind("forgotten", bytes.fromhex(statement_digest(said))),
        clock=ClockInfo(clock_ms=99_400_500, reset_count=3, restart_count=0, safe=True),
        firmware_version=FIRMWARE,
        body=NvCertified(
            index_name=nv_name(counter_public(index).pack()),
            offset=0,
            contents=value.to_bytes(8, "big"),
        ),
    ).pack()
    sig = pack_quote(attest, tpm_signature(attest).pack())
    return encode_statement(said, [Signature(keyid=key_id(spki("ak")), sig=sig)])


def block(data: bytes) -> str:
    """A document's block."""
    return lay_out(json.loads(decode_envelope(data).payload)) + "\n"


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


def written(text: str, data: bytes) -> str:
    """Put the block and the digest into their places."""
    text = BLOCK.sub(lambda m: f"```json {m[1]}=example\n{block(data)}```", text)
    return _DIGEST.sub(f"Its digest is `{decode_envelope(data).digest()}`", text)


def main() -> None:
    """Write the files, and the block of the document."""
    VECTORS.mkdir(exist_ok=True)
    (VECTORS / "example.dsse").write_bytes(example())
    (VECTORS / "malformed.txt").write_text(vectors())
    DOCUMENT.write_text(written(DOCUMENT.read_text(), example()))
    FORGOTTEN_VECTOR.parent.mkdir(exist_ok=True)
    FORGOTTEN_VECTOR.write_bytes(forgotten(forgot()))
    FORGOTTEN.write_text(written(FORGOTTEN.read_text(), forgotten(forgot())))


if __name__ == "__main__":
    main()
