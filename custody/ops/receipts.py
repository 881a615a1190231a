"""What a host says of a request at its end: a receipt, then proof that its key is dead.

The receipt comes first, so that a host that dies in between knows that only the burn is left to
do.  Formats: receipt.md, burn.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from custody.crypto.bind import bind
from custody.encoding import Digest, format_time, key_id
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.burn import Burn
from custody.formats.envelope import Predicate, Signature, encode_statement, statement_digest
from custody.formats.evidence import NvCertified, pack_quote, parse_attest, spki
from custody.formats.forgotten import Forgotten
from custody.formats.receipt import BadShare, Receipt
from custody.keys.hostapi import Attested, HostTpm
from custody.ops.folders import read_statement_file
from custody.ops.kept import Kept, KeptKeys, forget
from custody.ops.keys import ShareOpener
from custody.ops.landing import replace_file
from custody.ops.outstanding import DEATHS, Death, Ledger, Outstanding

_ENDS = {
    "opened": "was opened",
    "retained": "was opened, and is kept sealed",
    "failed": "was given up",
}
#: The receipt's reason where a request was given up.
GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlace:
    """Where a host keeps what it remembers of its requests, and the site it stands in.

    ``site`` are the keys of the site's HSM, in one login, where there is one at hand.
    """

    ledger: Ledger
    receipts: Path
    keys: KeptKeys
    site: tuple[ShareOpener, ...] = ()

    def find(self, request: Digest) -> Outstanding:
        """Return an open request.  Raises as `Ledger.find`, or `Refused` how this one ended."""
        try:
            return self.ledger.find(request)
        except Incomplete as error:
            path = self.receipt_path(request)
            if not path.exists():
                raise
            said = read_statement_file(Receipt, path).predicate
            raise Refused(
                f"{_ENDS[said.outcome]} at {format_time(said.finished_at)}",
                check="host.ended",
                where=f"request {request[:16]}",
                hint=f"custody host receipt {request[:16]} --out FILE copies it",
            ) from error

    def known(self) -> tuple[Digest, ...]:
        """Name every request this host remembers anything of: open, dead or ended."""
        files = [*self.ledger.folder.glob("*.*"), *self.receipts.glob("*.receipt.dsse")]
        names = {path.name.partition(".")[0] for path in files if not path.name.startswith(".")}
        return tuple(sorted(names))

    def receipt_path(self, request: Digest) -> Path:
        """Return where the receipt of a request is kept."""
        return self.receipts / f"{request}.receipt.dsse"

    def burn_path(self, request: Digest) -> Path:
        """Return where the burn receipt of a request is kept."""
        return self.receipts / f"{request}.burn.dsse"


class Burnt(NamedTuple):
    """What a counter stands at now, and the burn receipt that shows it."""

    value: int
    data: bytes


def burn(entry: Outstanding, tpm: HostTpm, place: HostPlace, *, now: datetime) -> Burnt:
    """Increment the counter, after which H opens nothing more, and have the TPM certify it.

    The request's receipt must be written.  Repeating it after an interruption does no harm: the
    counter goes up once more.
    """
    receipt = read_statement_file(Receipt, place.receipt_path(entry.request))
    said = Burn(
        request=entry.request,
        receipt=receipt.digest,
        counter=entry.counter,
        burned_at=now,
    )
    digest = bytes.fromhex(statement_digest(said))
    tpm = tpm.salted_to(entry.endorsement_key)
    with tpm.conversation():
        tpm.increment(entry.counter_index)
        certified = tpm.certify_counter(entry.counter_index, bind("burn", digest))
        data = _attested(said, certified, tpm)
    value = _counter_in(certified)
    if value <= entry.counter:
        raise Refused("the counter did not move", check="tpm.counter", where=entry.request[:16])
    replace_file(place.burn_path(entry.request), data, mode=0o644)
    place.ledger.forget(entry.request)
    return Burnt(value, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request whose key died of itself.  ``unburnt``: why no burn receipt shows it; or empty."""

    entry: Outstanding
    cause: Death
    unburnt: str


def end_dead(tpm: HostTpm, place: HostPlace, *, now: datetime) -> tuple[Ended, ...]:
    """End every request whose key is dead: receipt, burn receipt, and what it died of.

    Nothing can be opened by it any more, but only the counter shows that to others.  A TPM that
    will not burn, because it was cleared say, does not keep a host from asking again.
    """
    clock = tpm.clock()
    ended = []
    for entry in place.ledger.all():
        cause = entry.death(clock)
        if cause is None:
            continue
        opened, unburnt = place.receipt_path(entry.request).exists(), ""
        try:
            give_up(entry, tpm, place, now=now, reason=DEATHS[cause])
        except CustodyError as error:
            unburnt = error.reason
        # What was opened did not die unopened, and is tried again until it is burnt.
        if not opened:
            place.ledger.bury(entry.request, cause)
        ended.append(Ended(entry=entry, cause=cause, unburnt=unburnt))
    return tuple(ended)


def give_up(
    entry: Outstanding,
    tpm: HostTpm,
    place: HostPlace,
    *,
    now: datetime,
    reason: str = GIVEN_UP,
) -> Burnt:
    """Burn a request that is not to be opened, with a receipt that says so.

    One that says otherwise already stays: what was opened cannot be taken back.
    """
    path = place.receipt_path(entry.request)
    if not path.exists():
        # Killed half way, an opening may have kept its key, which no receipt would tell of.
        for kept in place.keys.of_request(entry.request):
            forget(kept, tpm, place.keys)
        data = attested_receipt(
            entry,
            outcome="failed",
            reason=reason,
            approvals=(),
            bad_shares=(),
            tpm=tpm,
            now=now,
        )
        replace_file(path, data, mode=0o644)
    return burn(entry, tpm, place, now=now)


def attested_receipt(
    entry: Outstanding,
    *,
    outcome: Literal["opened", "retained", "failed"],
    reason: str,
    approvals: tuple[Digest, ...],
    bad_shares: tuple[BadShare, ...],
    tpm: HostTpm,
    now: datetime,
) -> bytes:
    """Write a receipt whose signature is a quote by the AK over the request's registers."""
    receipt = Receipt(
        request=entry.request,
        manifest=entry.manifest,
        terms=entry.terms,
        outcome=outcome,
        reason=reason,
        approvals=approvals,
        bad_shares=bad_shares,
        counter=entry.counter,
        finished_at=now,
    )
    digest = bytes.fromhex(statement_digest(receipt))
    tpm = tpm.salted_to(entry.endorsement_key)
    with tpm.conversation():
        return _attested(receipt, tpm.quote(bind("receipt", digest), entry.pcrs), tpm)


def forgotten_statement(kept: Kept, tpm: HostTpm, *, now: datetime) -> bytes:
    """Say that a kept key was forgotten, and have the TPM certify its counter."""
    said = Forgotten(
        request=kept.request,
        manifest=kept.manifest,
        counter_index=kept.key.counter_index,
        counter=kept.key.counter,
        forgotten_at=now,
    )
    tpm = tpm.salted_to(kept.endorsement_key)
    over = bind("forgotten", bytes.fromhex(statement_digest(said)))
    return _attested(said, tpm.certify_counter(kept.key.counter_index, over), tpm)


def _attested(predicate: Predicate, made: Attested, tpm: HostTpm) -> bytes:
    """Put an attestation where a statement has its signature."""
    signature = Signature(
        keyid=key_id(spki(tpm.ak_public())), sig=pack_quote(made.attest, made.signature)
    )
    return encode_statement(predicate, [signature])


def _counter_in(certified: Attested) -> int:
    body = parse_attest(certified.attest).body
    return int.from_bytes(body.contents, "big") if isinstance(body, NvCertified) else 0
