"""Ask a time-stamping authority about a file, and take its answer.  Format: timestamp.md.

Nothing is fetched: the question and the answer are files, which go to the authority and come back
by whatever way there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custody.encoding import MAX_STATEMENT_BYTES, sha256
from custody.errors import Malformed, Refused
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import decode_envelope
from custody.formats.logproof import MAX_PROOF_BYTES, decode_proof
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.timestamp import MAX_TOKEN_BYTES, decode_token, timestamp_request
from custody.ops.folders import read_file, reading
from custody.rules.times import Stamp, verify_token


def stamped_bytes(path: Path) -> bytes:
    """Return what a timestamp over a file is over: a statement's PAE, a checkpoint's text.

    A file is a statement (``.dsse``), a proof (``.tlog-proof``: its checkpoint) or a checkpoint.
    """
    with reading(path):
        if path.suffix == ".dsse":
            return decode_envelope(read_file(path, max_bytes=MAX_STATEMENT_BYTES)).signed_bytes()
        if path.suffix == ".tlog-proof":
            proof = decode_proof(read_file(path, max_bytes=MAX_PROOF_BYTES))
            return proof.signed.checkpoint.text().encode()
        signed = decode_checkpoint(read_file(path, max_bytes=MAX_NOTE_BYTES))
        return signed.checkpoint.text().encode()


def ask(path: Path) -> bytes:
    """Write the question, a DER TimeStampReq."""
    return timestamp_request(stamped_bytes(path))


def take(path: Path, response: Path, *, tsa_roots: Sequence[bytes]) -> tuple[bytes, Stamp]:
    """Check an answer, a DER TimeStampResp about ``path``; return it and what it says.

    Raises `Refused`: ``time.imprint`` where it is about something else, and ``time.token`` where
    its authority is not one of those whose roots are given.
    """
    with reading(response):
        token = decode_token(read_file(response, max_bytes=MAX_TOKEN_BYTES))
    if token.imprint != sha256(stamped_bytes(path)).hex():
        raise Refused("is a timestamp over another file", check="time.imprint", where=str(response))
    if not tsa_roots:
        raise Malformed("no authority's root was given to judge it by", where=str(response))
    return token.data, verify_token(token, tsa_roots)
