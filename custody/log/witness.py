"""Being a witness: C2SP tlog-witness, add-checkpoint.  And asking witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from custody.crypto.merkle import root, verify_consistency
from custody.crypto.notekeys import NoteKey, WitnessSigner
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.checkpoint import (
    SignedCheckpoint,
    check_signed_by,
    cosign_checkpoint,
    parse_size,
)
from custody.formats.logpolicy import KnownKey
from custody.formats.note import NoteSignature, decode_signatures, decode_text
from custody.formats.witnessing import (
    SIZE_MEDIA_TYPE,
    CosignRequest,
    decode_cosign_request,
)
from custody.log.reader import Conflict
from custody.log.tree import Tree

_TEXT = "text/plain; charset=utf-8"


class WitnessMemory(Protocol):
    """The newest checkpoint cosigned for each log."""

    def latest(self, origin: str) -> SignedCheckpoint | None:
        """Return it."""

    def advance(self, signed: SignedCheckpoint, *, after: SignedCheckpoint | None) -> bool:
        """Put ``signed`` in the place of ``after``, durably; False if something else is there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, and where the log contradicted itself, the evidence."""

    status: int
    body: bytes = b""
    media_type: str = _TEXT
    conflict: Conflict | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """Cosigns the heads of some logs, each only if it follows from the one before."""

    signer: WitnessSigner
    logs: tuple[NoteKey, ...]
    memory: WitnessMemory

    def add_checkpoint(self, body: bytes, *, seconds: int) -> Answer:
        """Answer one add-checkpoint request as of a POSIX time."""
        try:
            request = decode_cosign_request(body)
        except Malformed as error:
            return Answer(400, f"{error.reason}\n".encode())
        refusal = self._check_log(request.signed)
        if refusal is not None:
            return refusal
        checkpoint = request.signed.checkpoint
        if request.old_size > checkpoint.size:
            return Answer(400, b"the old size is the larger one\n")
        return self._cosign(request, seconds)

    def _check_log(self, signed: SignedCheckpoint) -> Answer | None:
        keys = [key for key in self.logs if key.name == signed.checkpoint.origin]
        if not keys:
            return Answer(404, b"not a log that is witnessed here\n")
        for key in keys:
            try:
                check_signed_by(signed, key)
            except Refused:
                continue
            return None
        return Answer(403, b"not signed by the log's key\n")

    def _cosign(self, request: CosignRequest, seconds: int) -> Answer:
        signed = request.signed
        checkpoint = signed.checkpoint
        latest = self.memory.latest(checkpoint.origin)
        old_size, old_root = 0, root(())
        if latest is not None:
            old_size, old_root = latest.checkpoint.size, latest.checkpoint.root
        if request.old_size != old_size:
            return _size_is(old_size)
        if latest is not None and checkpoint.size == old_size and checkpoint.root != old_root:
            # Two heads of one size, both signed: nothing more is needed to prove the fork.
            return Answer(
                409, b"%d\n" % old_size, SIZE_MEDIA_TYPE, Conflict("fork", latest, signed)
            )
        try:
            verify_consistency(
                old_size, old_root, checkpoint.size, checkpoint.root, proof=request.proof
            )
        except Refused as error:
            # A wrong proof proves nothing about the log: anyone could have sent it.
            return Answer(422, f"{error.reason}\n".encode())
        # Remembered before it is signed, and only if nobody else was faster: two requests at once
        # could otherwise roll the memory back, and a rolled back witness cosigns a fork.
        if not self.memory.advance(signed, after=latest):
            now = self.memory.latest(checkpoint.origin)
            return _size_is(old_size if now is None else now.checkpoint.size)
        line = cosign_checkpoint(checkpoint, self.signer, seconds=seconds)
        return Answer(200, line.line().encode())


def _size_is(size: int) -> Answer:
    return Answer(409, b"%d\n" % size, SIZE_MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a witness's server answered."""

    status: int
    media_type: str
    body: bytes


#: Posts a body to an address; raises `Unavailable` if nobody answers.
Post = Callable[[str, bytes], Reply]


def ask_witness(
    witness: KnownKey, signed: SignedCheckpoint, tree: Tree, post: Post
) -> tuple[NoteSignature, ...]:
    """Ask one witness, by its address, to cosign; the proof is made from ``tree``.

    Raises `Refused` (``witness.answer``) with what it answered if it would not, and
    (``witness.ahead``) if it has cosigned a larger tree than this.
    """
    address = f"{witness.url}".rstrip("/") + "/add-checkpoint"
    old = 0
    # Nobody but the witness knows how far it is; it says so when it is told wrongly.
    for _ in range(3):
        request = CosignRequest(old, tree.consistency(old), signed)
        reply = post(address, request.encode())
        if reply.status != 409 or reply.media_type != SIZE_MEDIA_TYPE:
            break
        told = parse_size(decode_text(reply.body).removesuffix("\n"))
        if told > signed.checkpoint.size:
            raise Refused(f"the witness has seen {told} entries of this log", check="witness.ahead")
        if told == old:
            break
        old = told
    if reply.status != 200:
        raise Refused(f"the witness answers {reply.status}", check="witness.answer")
    return _cosignatures(reply.body, witness.key, signed)


def _cosignatures(body: bytes, key: NoteKey, signed: SignedCheckpoint) -> tuple[NoteSignature, ...]:
    lines = [line for line in decode_signatures(decode_text(body)) if line.claims(key)]
    if not signed.with_signatures(*lines).note.by(key):
        raise Refused("the witness's answer holds no signature by its key", check="witness.answer")
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the witnesses said: their signatures, and by name why the others gave none."""

    signatures: tuple[NoteSignature, ...]
    failures: tuple[tuple[str, str], ...]


def ask_witnesses(
    witnesses: Iterable[tuple[str, KnownKey]],
    signed: SignedCheckpoint,
    tree: Tree,
    post: Post,
) -> Asked:
    """Ask every witness that has an address; one that fails does not stop the others."""
    signatures: list[NoteSignature] = []
    failures: list[tuple[str, str]] = []
    for name, witness in witnesses:
        if witness.url is None:
            continue
        try:
            signatures += ask_witness(witness, signed, tree, post)
        except (Malformed, Refused, Unavailable) as error:
            failures.append((name, error.reason))
    return Asked(tuple(signatures), tuple(failures))
