"""The examples of keyrequest.md, and what no reader of them takes.

They go on from the manifest of spec_examples.  Everything follows from words (`fixed`), so that
``python -m tests.unit.formats.keyrequest_examples`` writes the same files and blocks wherever it
runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from custody import formats
from custody.encoding import key_id
from custody.formats.envelope import (
    Predicate,
    Signature,
    decode_envelope,
    encode_statement,
    signing_bytes,
    statement_digest,
)
from custody.formats.keyrequest import Consent, KeyReceipt, KeyRequest, KeyTerms
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki
from tests.unit.formats.spec_examples import NOW, digest_of, manifest

DOCUMENT = Path(formats.__file__).parent / "keyrequest.md"
VECTORS = Path(__file__).parents[2] / "vectors" / "keyrequest"
BLOCK = re.compile(r"^```json keyrequest=(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIGEST = re.compile(r"The digest of the (\w+) is `[^`]*`")
_TERMS = re.compile(r"Its terms come to `[^`]*`")


def terms() -> KeyTerms:
    """What the host mainframe-1 asks for."""
    return KeyTerms(
        manifest=statement_digest(manifest()),
        policy=digest_of("policy 3"),
        recipient=key_id(spki("mainframe share")),
        nonce=octets("a nonce").hex(),
        deadline=NOW + timedelta(hours=6),
        checkpoint=None,
    )


def request() -> KeyRequest:
    """The host's request."""
    return KeyRequest(
        author=key_id(spki("mainframe sign")),
        terms=terms(),
        environment=digest_of("policy 1"),
        host="mainframe-1",
        signer=spki("mainframe sign"),
        suite="P256",
        recipient=spki("mainframe share"),
        mlkem=None,
        requested_at=NOW,
        checkpoint=None,
    )


def consent() -> Consent:
    """What alice says first."""
    return Consent(
        author=key_id(spki("alice sign")),
        request=statement_digest(request()),
        manifest=terms().manifest,
        policy=terms().policy,
        terms=terms().digest().hex(),
        consented_at=NOW + timedelta(minutes=10),
        expires_at=NOW + timedelta(minutes=10, hours=8),
    )


def receipt() -> KeyReceipt:
    """What the host says in the end."""
    return KeyReceipt(
        author=key_id(spki("mainframe sign")),
        request=statement_digest(request()),
        manifest=terms().manifest,
        terms=terms().digest().hex(),
        outcome="opened",
        reason="",
        approvals=tuple(sorted((digest_of("approval by alice"), digest_of("approval by bob")))),
        bad_shares=(),
        finished_at=NOW + timedelta(minutes=40),
    )


def _signed(predicate: Predicate, who: str) -> bytes:
    signature = Signature(keyid=key_id(spki(who)), sig=sign(who, signing_bytes(predicate)))
    return encode_statement(predicate, [signature])


#: By the name of the block; the file is ``NAME.dsse``.
EXAMPLES: dict[str, bytes] = {
    "request": _signed(request(), "mainframe sign"),
    "consent": _signed(consent(), "alice sign"),
    "receipt": _signed(receipt(), "mainframe sign"),
}
KINDS: dict[str, type[Predicate]] = {
    "request": KeyRequest,
    "consent": Consent,
    "receipt": KeyReceipt,
}


def malformed() -> Iterator[tuple[str, str, str, bytes]]:
    """What no reader takes: kind, comment, part of the reason, file."""
    other = base64.b64encode(spki("somebody else")).decode().encode()
    share = base64.b64encode(spki("mainframe share"))
    signer = base64.b64encode(spki("mainframe sign"))
    nonce, author = terms().nonce.encode(), request().author.encode()
    for kind, comment, reason, old, new in (
        ("request", "terms of another key", "terms: of another key", share, other),
        ("request", "another signing key than it names", "author: of another key", signer, other),
        ("request", "no author", "required field", b'"author":"' + author + b'",', b""),
        (
            "request",
            "a suite that only decrypts",
            "Invalid enum",
            b'"P256"',
            b'"RSA2048_OAEP_SHA1"',
        ),
        ("request", "a nonce that is short", "64 lower-case", nonce, nonce[:-2]),
        (
            "request",
            "a mode, which such a request has not",
            "unknown field",
            b'"nonce":',
            b'"mode":"sealed","nonce":',
        ),
        (
            "request",
            "a TPM's evidence",
            "unknown field",
            b'"mlkem":',
            b'"akPublic":"AA==","mlkem":',
        ),
        ("request", "no deadline", "Expected `datetime`", b'"2027-01-05T18:00:00Z"', b"null"),
        (
            "consent",
            "a share, which no consent carries",
            "unknown field",
            b'"terms":',
            b'"sealedShare":"AA==","terms":',
        ),
        ("consent", "part of a second", "not a UTC time", b"12:10:00Z", b"12:10:00.5Z"),
        (
            "consent",
            "no author",
            "required field",
            b'"author":"' + consent().author.encode() + b'",',
            b"",
        ),
        (
            "receipt",
            "a key that is kept",
            "Invalid enum",
            b'"outcome":"opened"',
            b'"outcome":"retained"',
        ),
        (
            "receipt",
            "a counter, which no HSM shows",
            "unknown field",
            b'"finishedAt":',
            b'"counter":7,"finishedAt":',
        ),
    ):
        payload = decode_envelope(EXAMPLES[kind]).payload
        changed = payload.replace(old, new, 1)
        if changed == payload:
            raise AssertionError(comment)
        yield kind, comment, reason, _enveloped(kind, changed)
    first, second = receipt().approvals
    turned = decode_envelope(EXAMPLES["receipt"]).payload.replace(
        f'"{first}","{second}"'.encode(), f'"{second}","{first}"'.encode(), 1
    )
    yield "receipt", "approvals out of order", "not in order", _enveloped("receipt", turned)
    yield "consent", "a request", "not consent", EXAMPLES["request"]


def _enveloped(kind: str, payload: bytes) -> bytes:
    held = json.loads(EXAMPLES[kind])
    held["payload"] = base64.b64encode(payload).decode()
    return json.dumps(held, sort_keys=True, separators=(",", ":")).encode()


def vectors() -> str:
    """The text of ``malformed.txt``."""
    blocks = [
        f"kind: {kind}\ncomment: {comment}\nreason: {reason}\n"
        f"file: {base64.b64encode(data).decode()}\n"
        for kind, comment, reason, data in malformed()
    ]
    return "# What no reader of key requests, consents and key receipts takes.\n\n" + "\n".join(
        blocks
    )


def written(text: str) -> str:
    """Put blocks and digests into their places."""

    def block(found: re.Match[str]) -> str:
        payload = json.loads(decode_envelope(EXAMPLES[found[1]]).payload)
        return f"```json keyrequest={found[1]}\n{lay_out(payload)}\n```"

    text = BLOCK.sub(block, text)
    text = _TERMS.sub(f"Its terms come to `{terms().digest().hex()}`", text)
    return _DIGEST.sub(
        lambda m: f"The digest of the {m[1]} is `{decode_envelope(EXAMPLES[m[1]]).digest()}`", text
    )


def main() -> None:
    """Write the files, and the blocks of the document."""
    VECTORS.mkdir(exist_ok=True)
    for name, data in EXAMPLES.items():
        (VECTORS / f"{name}.dsse").write_bytes(data)
    (VECTORS / "malformed.txt").write_text(vectors())
    DOCUMENT.write_text(written(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
