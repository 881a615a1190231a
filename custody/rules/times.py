"""By when was a statement there?  From witnesses of a log and from time-stamping authorities.

A statement that names another by digest was made after it: whatever shows that the one was there
by some moment shows it of the other.  Format: timestamp.md, "Verifying".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from cryptography import x509

from custody.encoding import Digest, encode, sha256
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.envelope import Predicate, Statement
from custody.formats.logpolicy import LogPolicy
from custody.formats.timestamp import Token

_DIGEST = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Somebody vouches that a statement was there by ``at``; ``by`` says who, in words."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Times:
    """By when statements were there, as far as anybody who counts vouches for it."""

    stamps: Mapping[Digest, Stamp]

    def of(self, *statements: Digest) -> Stamp | None:
        """Return by when all of some statements were there; None if of one nobody tells."""
        found = [self.stamps.get(statement) for statement in statements]
        told = [stamp for stamp in found if stamp is not None]
        if not told or len(told) < len(found):
            return None
        return max(told, key=lambda stamp: (stamp.at, stamp.by))


def verify_token(token: Token, roots: Sequence[bytes]) -> Stamp:
    """Judge a token by the certificates (DER) of TSAs that count; return what it says.

    The authority's certificate is judged at the token's own time: archives outlive certificates.
    Whether it was revoked is not asked.  Raises `Refused` (``time.token``).
    """
    from rfc3161_client import (  # noqa: PLC0415  # 0.1 s, for who has a token
        VerificationError,
        VerifierBuilder,
        decode_timestamp_response,
    )

    # One root at a time: the library looks for an issuer by name, and two roots may share one.
    for root in roots:
        try:
            trusted = VerifierBuilder(roots=[x509.load_der_x509_certificate(root)]).build()
            trusted.verify(decode_timestamp_response(token.data), bytes.fromhex(token.imprint))
            signer = x509.load_der_x509_certificate(token.certificate)
        except (VerificationError, ValueError, TypeError):
            continue
        return Stamp(at=token.at, by=f"timestamp by {signer.subject.rfc4514_string()}")
    raise Refused("not a timestamp by an authority that counts", check="time.token")


def trusted_times(
    documents: Documents, *, logs: LogPolicy | None, tsa_roots: Sequence[bytes]
) -> Times:
    """Find by when every statement of a case was there; what does not verify tells nothing."""
    own: dict[Digest, Stamp] = {}

    def tell(statement: Digest, stamp: Stamp) -> None:
        known = own.get(statement)
        if known is None or (stamp.at, stamp.by) < (known.at, known.by):
            own[statement] = stamp

    stamped = dict(_stamped(documents, tsa_roots))
    for digest, stamp in stamped.items():
        tell(digest, stamp)
    for statement, signed in proven(documents):
        over = stamped.get(imprint_of(signed))
        if over is not None:
            tell(statement, over)
        witnessed = _witnessed(signed, logs)
        if witnessed is not None:
            tell(statement, witnessed)
    return Times(_spread(own, _names(documents)))


def imprint_of(signed: SignedCheckpoint) -> Digest:
    """Return what a timestamp over a checkpoint is over: SHA-256 of its text."""
    return sha256(signed.checkpoint.text().encode()).hex()


def proven(documents: Documents) -> Iterator[tuple[Digest, SignedCheckpoint]]:
    """Give the statements that proofs here show to be under a checkpoint, whoever signed it."""
    for given in documents.proofs:
        try:
            given.proof.check_entry(given.entry.encode())
        except CustodyError:
            continue
        yield given.entry.digest, given.proof.signed
    for word in documents.logged:
        try:
            signed = decode_checkpoint(word.predicate.checkpoint)
            included = [entry.statement for entry in word.predicate.entries if entry.is_in(signed)]
        except CustodyError:
            continue
        for statement in included:
            yield statement, signed


def _stamped(documents: Documents, roots: Sequence[bytes]) -> Iterator[tuple[Digest, Stamp]]:
    """Give the earliest good stamp over each digest."""
    found: dict[Digest, Stamp] = {}
    for token in documents.tokens if roots else ():
        try:
            stamp = verify_token(token, roots)
        except Refused:
            continue
        known = found.get(token.imprint)
        if known is None or stamp.at < known.at:
            found[token.imprint] = stamp
    yield from found.items()


def _witnessed(signed: SignedCheckpoint, logs: LogPolicy | None) -> Stamp | None:
    if logs is None:
        return None
    try:
        vouched = logs.judge(signed)
        if vouched.seconds is None:
            return None
        at = datetime.fromtimestamp(vouched.seconds, UTC)
    except (Refused, Incomplete, Malformed, OverflowError, ValueError, OSError):
        return None
    return Stamp(at=at, by=f"witnesses of {vouched.log.name}")


def statements_of(documents: Documents) -> Iterator[Statement[Predicate]]:
    """Give every statement of a case."""
    for each in fields(Documents):
        for item in getattr(documents, each.name):
            if isinstance(item, Statement):
                yield item


def _names(documents: Documents) -> Mapping[Digest, frozenset[Digest]]:
    """Say of each statement which others it names."""
    every = {s.digest: s for s in statements_of(documents)}
    return {
        digest: frozenset(
            name
            for found in _DIGEST.findall(encode(statement.predicate))
            if (name := found.decode()) in every and name != digest
        )
        for digest, statement in every.items()
    }


def _spread(
    own: Mapping[Digest, Stamp], names: Mapping[Digest, frozenset[Digest]]
) -> Mapping[Digest, Stamp]:
    """Give what a statement names the moment by which the statement itself was there."""
    found: dict[Digest, Stamp] = {}
    for digest in sorted(own, key=lambda d: (own[d].at, own[d].by, d)):
        waiting = [digest]
        while waiting:
            reached = waiting.pop()
            if reached not in found:
                found[reached] = own[digest]
                waiting += sorted(names.get(reached, frozenset()))
    return found
