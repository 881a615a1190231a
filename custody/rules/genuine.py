"""Is a file of a case what it says it is, by keys that count?  What is not, nobody collects.

Certificates, requests, and what logs and time-stamping authorities say: statements that people sign
are judged by who signed them (`rules.trust`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from custody.crypto.bind import bind
from custody.crypto.certificates import certificate_signed_by, read_certificate, spki_of
from custody.crypto.signature import verify
from custody.encoding import KeyId, key_id
from custody.errors import CustodyError, Refused
from custody.formats.case import EntryProof
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.evidence import unpack_quote
from custody.formats.logged import Logged
from custody.formats.logpolicy import LogPolicy
from custody.formats.note import Note
from custody.formats.request import Request
from custody.formats.timestamp import Token
from custody.rules.attested import is_over, read_attested
from custody.rules.times import verify_token


def is_quoted(request: Statement[Request]) -> bool:
    """Tell whether a request's signature is a quote over it by the key in it."""
    try:
        quote = unpack_quote(request.envelope.signatures[0].sig)
        attest = read_attested(request.predicate.ak_public, quote)
    except CustodyError:
        return False
    return is_over(attest, bind("request", bytes.fromhex(request.digest)))


def is_signed(word: Statement[Logged], logs: Sequence[LogPolicy]) -> bool:
    """Tell whether a log of the policies signed a word on a request, and its checkpoint."""
    signature = word.envelope.signatures[0]
    for log in (known.key for policy in logs for known in policy.logs):
        if key_id(log.public) != signature.keyid:
            continue
        try:
            verify(log.public, word.envelope.signed_bytes(), signature.sig)
            decode_checkpoint(word.predicate.checkpoint)
        except CustodyError:
            continue
        return True
    return False


def known_lines(signed: SignedCheckpoint, logs: Sequence[LogPolicy]) -> SignedCheckpoint | None:
    """Return a checkpoint with only the signatures of a log of the policies and its witnesses.

    None: no such log signed it, or something wrong bears the name of one that is known.
    """
    for policy in logs:
        keys = [known.key for known in (*policy.logs, *policy.witnesses.values())]
        try:
            policy.log_of(signed)
            lines = tuple(
                line
                for line in signed.note.signatures
                if any(Note(signed.note.text, (line,)).by(key) for key in keys)
            )
        except Refused:
            continue
        return SignedCheckpoint(signed.checkpoint, Note(signed.note.text, lines))
    return None


def is_proven(given: EntryProof) -> bool:
    """Tell whether a proof leads from its entry to its checkpoint, whoever signed that."""
    try:
        given.proof.check_entry(given.entry.encode())
    except CustodyError:
        return False
    return True


def is_stamped(token: Token, tsa_roots: Sequence[bytes]) -> bool:
    """Tell whether a timestamp is by an authority under one of the roots (DER)."""
    try:
        verify_token(token, tsa_roots)
    except Refused:
        return False
    return True


def is_of(der: bytes, keys: Collection[KeyId]) -> bool:
    """Tell whether a certificate (DER) is of one of the keys."""
    try:
        return key_id(spki_of(der)) in keys
    except CustodyError:
        return False


def is_issued_by(der: bytes, authorities: Iterable[bytes]) -> bool:
    """Tell whether one of the authorities (DER) signed a certificate (DER)."""
    try:
        certificate = read_certificate(der)
        return any(certificate_signed_by(certificate, authority) for authority in authorities)
    except CustodyError:
        return False
