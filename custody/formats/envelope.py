"""DSSE envelopes around in-toto statements.  Format: envelope.md, version 1.

Follows DSSE v1.0.2 (PAE over bytes) and in-toto Statement v1.  Signatures are carried here and
checked elsewhere: nothing in this module knows a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Generic, Literal, Protocol, TypeVar, cast

import msgspec

from custody.encoding import MAX_STATEMENT_BYTES, Digest, KeyId, Record, decode, encode, sha256
from custody.errors import Malformed

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
#: More signers than any threshold needs; a cap against work made by strangers.
MAX_SIGNATURES = 32
_TYPE = re.compile(r"\Aurn:custody:([a-z-]{1,40}):v[0-9]{1,4}\Z")


class Signature(Record, frozen=True):
    """One signature.  ``keyid`` is hex SHA-256 of the signer's SPKI, never a hint."""

    keyid: KeyId
    sig: Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]


class Envelope(Record, frozen=True):
    """A payload and who signed it.  Nothing in it is verified yet."""

    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[
        tuple[Signature, ...], msgspec.Meta(min_length=1, max_length=MAX_SIGNATURES)
    ]

    def signed_bytes(self) -> bytes:
        """Return what every signature of this envelope is over."""
        return pae(self.payload_type, self.payload)

    def digest(self) -> Digest:
        """Return the statement digest: SHA-256 of the PAE, never of the envelope.

        Anybody can turn an ECDSA signature into another valid one or edit ``keyid``; a digest
        of the envelope would let him make one statement look like two.
        """
        return sha256(self.signed_bytes()).hex()


class Subject(Record, frozen=True):
    """What a statement is about."""

    digest: SubjectDigest
    name: str


class SubjectDigest(Record, frozen=True):
    """The one digest algorithm of a subject."""

    sha256: Digest


class Predicate(Protocol):
    """What a statement says.  Each format document is one of these."""

    PREDICATE_TYPE: ClassVar[str]
    MANY_SIGNERS: ClassVar[bool]

    def subject(self) -> tuple[str, Digest]:
        """Return the name and digest of what the statement is about."""
        ...


P = TypeVar("P", bound=Predicate)
#: Whoever takes a statement of a kind takes one of a narrower kind.
P_co = TypeVar("P_co", bound=Predicate, covariant=True)


class Authored(Record, frozen=True):
    """What names the one key that may sign it.

    Without, a text whose digest is logged could be signed again by another key that the policy
    lists, and the copy stand in its author's place.  Rules hold it against who signed.
    """

    author: KeyId


class _Statement(Record, Generic[P], frozen=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    predicate: P
    predicate_type: str
    subject: tuple[Subject, ...]


class _Kind(msgspec.Struct):
    """Just enough of a payload to tell which format it follows."""

    predicate_type: str = msgspec.field(name="predicateType")


class Statement(msgspec.Struct, Generic[P_co], frozen=True, kw_only=True):
    """A decoded statement beside the envelope it came in.  Its signatures are not checked yet."""

    envelope: Envelope
    predicate: P_co
    digest: Digest


def of_kind(kind: type[P], statement: Statement[Predicate]) -> Statement[P] | None:
    """Return a statement as one of ``kind`` if that is what it is."""
    # A statement is of its predicate's kind, which the type checker does not follow.
    return cast("Statement[P]", statement) if isinstance(statement.predicate, kind) else None


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding of DSSE v1.0.2; lengths count bytes, not characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def payload_of(predicate: Predicate) -> bytes:
    """Write the in-toto statement that carries ``predicate``.

    Raises `Malformed` for what no reader would take, so that nobody signs it: a field's limits
    are checked when a document is read, not when a program fills it in.
    """
    name, digest = predicate.subject()
    payload = encode(
        _Statement(
            type_=STATEMENT_TYPE,
            predicate=predicate,
            predicate_type=predicate.PREDICATE_TYPE,
            subject=(Subject(digest=SubjectDigest(sha256=digest), name=name),),
        )
    )
    _read_payload(type(predicate), payload, max_bytes=MAX_STATEMENT_BYTES)
    return payload


def signing_bytes(predicate: Predicate) -> bytes:
    """Return the bytes a signer of ``predicate`` signs."""
    return pae(PAYLOAD_TYPE, payload_of(predicate))


def statement_digest(predicate: Predicate) -> Digest:
    """Return the statement digest that ``predicate`` will have once signed."""
    return sha256(signing_bytes(predicate)).hex()


def encode_statement(predicate: Predicate, signatures: Sequence[Signature]) -> bytes:
    """Write a ``.dsse`` file.  Signatures are put in keyid order."""
    return encode(
        Envelope(
            payload=payload_of(predicate),
            payload_type=PAYLOAD_TYPE,
            signatures=tuple(sorted(signatures, key=lambda s: s.keyid)),
        )
    )


def decode_envelope(data: bytes, *, max_bytes: int = MAX_STATEMENT_BYTES) -> Envelope:
    """Read a ``.dsse`` file without looking into its payload."""
    envelope = decode(Envelope, data, max_bytes=max_bytes)
    keyids = [signature.keyid for signature in envelope.signatures]
    if keyids != sorted(set(keyids)):
        raise Malformed("signatures are not one per signer in keyid order")
    return envelope


def predicate_type(envelope: Envelope) -> str:
    """Return the predicate type an envelope claims, to choose a reader by."""
    try:
        return msgspec.json.decode(envelope.payload, type=_Kind).predicate_type
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed("payload is not an in-toto statement") from error


def decode_statement(
    kind: type[P], data: bytes, *, max_bytes: int = MAX_STATEMENT_BYTES
) -> Statement[P]:
    """Read a ``.dsse`` file that must carry ``kind``; raise `Malformed` on anything else."""
    envelope = decode_envelope(data, max_bytes=max_bytes)
    found = predicate_type(envelope)
    if found != kind.PREDICATE_TYPE:
        raise _another(found, kind)
    if len(envelope.signatures) > 1 and not kind.MANY_SIGNERS:
        raise Malformed("has more than one signature")
    predicate = _read_payload(kind, envelope.payload, max_bytes=max_bytes)
    return Statement(envelope=envelope, predicate=predicate, digest=envelope.digest())


def _another(found: str, kind: type[P]) -> Malformed:
    name, named = _TYPE.match(found), _TYPE.match(kind.PREDICATE_TYPE)
    if name is None or named is None or name[1] == named[1]:
        return Malformed(f"holds {found[:80]!r}, not {kind.PREDICATE_TYPE!r}")
    words = (each[1].replace("-", " ") for each in (name, named))
    return Malformed("holds a statement of kind {}, not {}".format(*words))


def _read_payload(kind: type[P], payload: bytes, *, max_bytes: int) -> P:
    # A type made at run time, which msgspec takes and mypy does not.
    statement = decode(_Statement[kind], payload, max_bytes=max_bytes)  # type: ignore[valid-type]
    predicate: P = statement.predicate
    name, digest = predicate.subject()
    if statement.predicate_type != kind.PREDICATE_TYPE:
        raise _another(statement.predicate_type, kind)
    if statement.subject != (Subject(digest=SubjectDigest(sha256=digest), name=name),):
        raise Malformed("subject does not follow from the predicate")
    return predicate
