"""What a refusal must look like: a stable check id, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from custody.crypto.bind import bind
from custody.crypto.keyslots import approval_info, seal, slot_info
from custody.crypto.keyslots import open as open_slot
from custody.encoding import encode, key_id
from custody.errors import Incomplete, Refused
from custody.formats.approval import Approval
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.envelope import (
    Envelope,
    Predicate,
    Signature,
    Statement,
    decode_envelope,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.evidence import pack_quote, spki
from custody.formats.manifest import Core, Manifest, SecretEnvelope
from custody.formats.request import Request
from custody.ops.approve import review_requests
from custody.ops.audit import AuditReport, audit_case
from custody.ops.bundle import Bundle
from custody.ops.open import Opened
from custody.rules.approvals import Tally
from tests.release.cast import PCRS, Cast, as_approval

P = TypeVar("P", bound=Predicate)
QUORUM = ("sec1", "sec3", "lead2")
#: What a judge may write while he refuses: what he remembers.
_REMEMBERED = {"homes", "requests", "receipts", "kept", "memory.json", "seen.json", "lock"}


def listing(folder: Path) -> set[str]:
    """List every file and directory below, but for what homes remember."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name not in _REMEMBERED and path.parent.name != "homes"
    }


@contextmanager
def refused(cast: Cast, check: str) -> Iterator[None]:
    """Expect `Refused` with that check, and no file more or less than before."""
    before = listing(cast.folder)
    with pytest.raises(Refused) as caught:
        yield
    assert check == caught.value.check, caught.value
    assert before == listing(cast.folder)


@contextmanager
def incomplete(cast: Cast, *missing: str) -> Iterator[None]:
    """Expect `Incomplete` naming exactly these, and no file more or less than before."""
    before = listing(cast.folder)
    with pytest.raises(Incomplete) as caught:
        yield
    assert set(missing) == set(caught.value.missing), caught.value
    assert before == listing(cast.folder)


def signed(cast: Cast, who: str, predicate: P) -> Statement[P]:
    """Sign a one-signer statement as somebody."""
    return decode_statement(type(predicate), cast.people[who].signer.statement(predicate))


def resealed(
    cast: Cast,
    bundle: Bundle,
    *,
    by: str = "pub",
    core: Callable[[Core], Core] = lambda core: core,
    envelope: Callable[[SecretEnvelope], SecretEnvelope] = lambda envelope: envelope,
) -> Bundle:
    """Give the bundle another manifest, changed and signed again."""
    old = bundle.statement.predicate
    new = Manifest(core=core(old.core), envelope=envelope(old.envelope))
    return Bundle(path=bundle.path, statement=signed(cast, by, new))


def changed(cast: Cast, data: bytes, who: str, **changes: object) -> bytes:
    """Change fields of an approval and sign it again as ``who``."""
    said = decode_statement(Approval, data).predicate
    return cast.people[who].signer.statement(msgspec.structs.replace(said, **changes))


def tallied(
    cast: Cast, bundle: Bundle, request: Statement[Request], *answers: bytes, **when: object
) -> Tally:
    """Count answers as an officer's `status` does."""
    found = review_requests(
        bundle,
        [request],
        situation=cast.situation("sec1", *answers, **when),  # type: ignore[arg-type]
    )
    return found.requests[0].tally


def faults(tally: Tally) -> list[set[str]]:
    """List, for each approval that is passed over, the checks that failed."""
    return [{v.check for v in a.verdicts if v.outcome == "fail"} for a in tally.passed_over]


def case_of(
    cast: Cast,
    bundle: Bundle,
    request: Statement[Request],
    answers: Sequence[bytes],
    opened: Opened | None = None,
    *extra: tuple[str, bytes],
) -> Documents:
    """Put everything of a release in one heap, as an auditor gets it."""
    files = [(f"answer-{n}.dsse", data) for n, data in enumerate(answers)]
    files += [("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()), *extra]
    if opened is not None:
        files += [("receipt.dsse", opened.receipt_data), ("burn.dsse", opened.burn_data)]
    return merge(cast.documents, sort_documents(files), Documents(requests=(request,)))


def failed(report: AuditReport) -> set[str]:
    """List the checks that an audit found failed."""
    verdicts = [*report.verdicts, *(v for r in report.releases for v in r.verdicts)]
    return {v.check for v in verdicts if v.outcome == "fail"}


def audit(cast: Cast, case: Documents) -> AuditReport:
    """Audit a case by the cast's pin."""
    return audit_case(case, pin=cast.pin)


def opened(cast: Cast) -> tuple[Bundle, Statement[Request], list[bytes], Opened]:
    """Run one release to its end."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    return bundle, request, answers, cast.open(bundle, request, answers, cast.folder / "opened")


def spoil(data: bytes, extra: int = 0) -> bytes:
    """Copy a statement file with signatures that are none, and some more signers."""
    envelope = decode_envelope(data)
    rotten = [Signature(keyid=s.keyid, sig=b"\x30" + bytes(8)) for s in envelope.signatures]
    more = [Signature(keyid=f"{n:064x}", sig=bytes(8)) for n in range(extra)]
    signatures = tuple(sorted([*rotten, *more], key=lambda s: s.keyid))
    return encode(
        Envelope(
            payload=envelope.payload, payload_type=envelope.payload_type, signatures=signatures
        )
    )


def requoted(cast: Cast, request: Statement[Request], **changes: object) -> Statement[Request]:
    """Change a request and have the TPM quote it again, as a host that owns its software can."""
    body = msgspec.structs.replace(request.predicate, **changes)
    quote = cast.tpm.quote(bind("request", bytes.fromhex(statement_digest(body))), PCRS)
    signature = Signature(
        keyid=key_id(spki(body.ak_public)), sig=pack_quote(quote.attest, quote.signature)
    )
    found = sort_documents([("r.dsse", encode_statement(body, [signature]))])
    return found.requests[0]


def with_share(cast: Cast, answer: bytes, who: str, secret: bytes) -> bytes:
    """Put another share ‖ salt into an approval, well sealed to its H and signed by its author."""
    said = decode_statement(Approval, answer).predicate
    (request,) = (r for r in cast.asked if r.digest == said.request)
    body = request.predicate
    info = approval_info(said.request, said.leaf, cast.people[who].signer.key_id)
    sealed = seal(body.suite, body.recipient, body.mlkem, secret, info=info)
    return changed(cast, answer, who, sealed_share=sealed)


def spoilt(cast: Cast, answer: bytes, who: str, kind: str) -> bytes:
    """Spoil the share in an approval: another share, or bytes that nothing sealed."""
    if kind == "another":
        return with_share(cast, answer, who, bytes(64))
    size = len(as_approval(answer).predicate.sealed_share)
    return changed(cast, answer, who, sealed_share=bytes(size))


def share_in(cast: Cast, bundle: Bundle, who: str) -> bytes:
    """Open an officer's share ‖ salt of a bundle."""
    manifest = bundle.statement.predicate
    opener = cast.people[who].opener
    (slot,) = (s for s in manifest.slots_for(opener.recipient) if s.purpose == "share")
    info = slot_info(manifest.core.binding(), "share", slot.leaf, slot.recipient)
    return open_slot(slot.suite, opener.key, None, slot.sealed, info=info)
