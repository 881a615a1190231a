"""Open a bundle on the host its quorum released it to.  Protocol section 6, "Host".

The order is the defence: every rule first, then the TPM, which by itself refuses a short quorum,
then commitments, then the content key's commitment, then every part; and only when the whole model
has verified does it appear under its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from custody.crypto.secret import wipe
from custody.encoding import Digest
from custody.errors import Refused, Unavailable
from custody.formats.contents import Contents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.receipt import BadShare, Receipt
from custody.formats.request import Request
from custody.keys.hostapi import HostPolicyPlan, HostTpm
from custody.ops.ahead import Ahead
from custody.ops.bundle import Bundle
from custody.ops.kept import forget, retain
from custody.ops.keys import ShareOpener
from custody.ops.landing import (
    check_absent,
    disk_errors,
    keep_name,
    replace_file,
    resumable_directory,
)
from custody.ops.outstanding import Landing, Outstanding, check_alive
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.receipts import Burnt, HostPlace, attested_receipt, burn
from custody.ops.released import Shares, released, verified_release
from custody.rules.approvals import JudgedApproval
from custody.rules.attestation import conditions_of
from custody.rules.logged import JudgedLogged
from custody.rules.quorum import LOG_PATH, signing_path, signing_tree
from custody.rules.release import VerifiedRelease
from custody.rules.request import endorsement_key, enrolment_of, golden_of
from custody.rules.situation import Situation

_SHARE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What opening a bundle came to."""

    contents: Contents
    receipt: Statement[Receipt]
    receipt_data: bytes
    burn_data: bytes
    officers: tuple[str, ...]
    bad_shares: tuple[BadShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """A released bundle's contents, and the key to its payload, for as long as `unlocked` lasts."""

    contents: Contents
    entry: Outstanding
    release: VerifiedRelease
    approvals: tuple[Digest, ...]
    bad_shares: tuple[BadShare, ...]
    cek: bytearray = field(repr=False)

    def opened(self, receipt: bytes, burnt: Burnt) -> Opened:
        """Say what came of it; needs no key any more."""
        return Opened(
            contents=self.contents,
            receipt=decode_statement(Receipt, receipt),
            receipt_data=receipt,
            burn_data=burnt.data,
            officers=tuple(approval.officer for approval in self.release.approvals),
            bad_shares=self.bad_shares,
        )


def open_release(
    bundle: Bundle,
    request: Statement[Request],
    target: Path,
    *,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    base: Path | None = None,
    ahead: Ahead | None = None,
    progress: Progress = silent,
) -> Opened:
    """Open ``bundle`` into the new directory ``target``, once; then burn the request's counter.

    Approvals and denials are taken from ``situation.documents``; ``base`` is the directory of the
    model that a delta is to; ``ahead`` may have memory for the model already.  An interrupted run
    leaves nothing under ``target``; while H lives another one goes on, from what it left hidden
    beside it.  One killed after the model appeared has only the burn left (`interrupted`,
    `finish`), and is `Refused` here (``host.landed``).  Where the terms say so the key is kept for
    restarts (`ops.kept`), and the receipt says so.  Raises `Incomplete` naming who has not
    approved, `Refused` with the first check that fails, ``base.missing`` or ``base.different``
    among them.
    """
    entry = place.find(request.digest)
    check_not_landed(entry, place)
    check_absent(target)
    with unlocked(bundle, request, entry, situation=situation, tpm=tpm, site=place.site) as key:
        landing = None
        try:
            place.ledger.begin(request.digest, target)
            with resumable_directory(target, request.digest[:16]) as staging:
                open_into(
                    bundle.path,
                    staging,
                    core=bundle.core,
                    contents=key.contents,
                    cek=key.cek,
                    base=base,
                    ahead=ahead,
                    progress=progress,
                )
                receipt = _kept_or_opened(key, request, tpm, situation, place)
                # Both before the model appears: if we die after that, the next run finds them and
                # knows that only the burn is left to do.
                landing = Landing.of(target, staging)
                replace_file(place.receipt_path(request.digest), receipt, mode=0o644)
                place.ledger.keep(msgspec.structs.replace(entry, landing=landing))
        except BaseException:
            # Unless the model is there, and only the disk's word on it is missing.
            if landing is not None and not landing.done():
                with suppress(Unavailable):
                    _take_back(entry, tpm, place)
            raise
    return key.opened(receipt, burn(entry, tpm, place, now=situation.now))


@contextmanager
def unlocked(
    bundle: Bundle,
    request: Statement[Request],
    entry: Outstanding,
    *,
    situation: Situation,
    tpm: HostTpm,
    site: Sequence[ShareOpener] = (),
) -> Iterator[Unlocked]:
    """Go from the rules to the content key, which is wiped when the block ends.

    Nothing is written and nothing burnt: that is for the block.  Raises as `open_release` does.
    """
    check_alive(request, tpm.clock())
    release = verified_release(bundle, request, situation, site)
    # Shares come back over the bus: encrypted to nobody but the TPM the enrollers vouch for.
    salted = tpm.salted_to(endorsement_key(enrolment_of(request, situation).predicate))

    def opening(shares: Shares) -> None:
        with salted.conversation():
            _open_in_tpm(shares, release, request, entry, tpm=salted, situation=situation)

    with released(bundle, opening, situation=situation, site=site) as found:
        yield Unlocked(
            contents=found.contents,
            entry=entry,
            release=release,
            approvals=found.approvals,
            bad_shares=found.bad_shares,
            cek=found.cek,
        )


def interrupted(entry: Outstanding, target: Path, place: HostPlace) -> bool:
    """Whether an earlier run opened this request into ``target`` and died before the burn.

    It must be the very directory that run made.  Any other one of that name would have us burn
    the approvals for a model that nobody got.
    """
    return _is_there(entry.landing, entry.request, target, place)


def finish(entry: Outstanding, tpm: HostTpm, place: HostPlace, *, now: datetime) -> Burnt:
    """Burn a request whose opening was `interrupted`, its model there to stay."""
    if entry.landing is not None:
        keep_name(Path(entry.landing.target))
    return burn(entry, tpm, place, now=now)


def ended_in(request: Digest, target: Path, place: HostPlace) -> bool:
    """Whether a request was opened into ``target``, which is there still, and burnt."""
    if place.ledger.left(request) is not None:
        return False
    return _is_there(place.ledger.landed(request), request, target, place)


def _is_there(landing: Landing | None, request: Digest, target: Path, place: HostPlace) -> bool:
    if landing is None or landing.target != str(target.absolute()):
        return False
    return landing.done() and place.receipt_path(request).exists()


def check_not_landed(entry: Outstanding, place: HostPlace) -> None:
    """Refuse to open again, anywhere, what a run that died before the burn opened and is there."""
    landing = entry.landing
    if landing is not None and _is_there(landing, entry.request, Path(landing.target), place):
        named = entry.request[:16]
        raise Refused(
            f"was opened into {landing.target}, by a run that died before it burnt the request",
            check="host.landed",
            where=f"request {named}",
            hint="open into that folder once more, which only burns; or custody host cancel "
            f"{named}",
        )


def _kept_or_opened(
    key: Unlocked,
    request: Statement[Request],
    tpm: HostTpm,
    situation: Situation,
    place: HostPlace,
) -> bytes:
    """Keep the content key where the terms say so; write the receipt that tells of it."""
    if not request.predicate.terms.keeps_key:
        return opened_receipt(key, tpm, situation)
    salted = tpm.salted_to(endorsement_key(enrolment_of(request, situation).predicate))
    # Before its receipt: what is kept must never be on record as not kept.
    retain(key.cek, request, tpm=salted, keys=place.keys, situation=situation)
    return opened_receipt(key, tpm, situation, outcome="retained")


def _take_back(entry: Outstanding, tpm: HostTpm, place: HostPlace) -> None:
    """Remember again what was so before an opening that came to nothing."""
    place.ledger.keep(entry)
    if entry.landing is None:
        for kept in place.keys.of_request(entry.request):
            forget(kept, tpm, place.keys)
        with disk_errors(place.receipts):
            place.receipt_path(entry.request).unlink(missing_ok=True)


def host_plan(
    request: Statement[Request],
    approvals: Sequence[JudgedApproval],
    counter_index: int,
    situation: Situation,
    logged: JudgedLogged | None = None,
) -> HostPolicyPlan:
    """Lay out what H's TPM must be shown: the tree in force, and who signed these terms.

    ``logged`` is the log's word, where the policy demands one.
    """
    policy = situation.trusted.policy
    tree, officers = signing_tree(policy)
    signatures = {
        path: approval.statement.predicate.terms_signature
        for approval in approvals
        if (path := signing_path(policy, approval.key)) is not None
    }
    if logged is not None:
        signatures[LOG_PATH] = logged.said.terms_signature
    terms = request.predicate.terms
    return HostPolicyPlan(
        tree=tree,
        officers=officers,
        signatures=signatures,
        terms=terms.digest(),
        conditions=conditions_of(terms, golden_of(request, situation).predicate),
        counter_index=counter_index,
    )


def _open_in_tpm(
    shares: Shares,
    release: VerifiedRelease,
    request: Statement[Request],
    entry: Outstanding,
    *,
    tpm: HostTpm,
    situation: Situation,
) -> None:
    """Have the TPM, shown the whole quorum, open every share."""
    plan = host_plan(request, release.approvals, entry.counter_index, situation, release.logged)
    key = tpm.open_host_key(entry.host_key, plan)
    seed = tpm.unseal_seed(entry.seed, plan) if entry.seed else bytearray()
    try:
        shares.open(release, key, seed, situation)
    finally:
        wipe(seed)


def opened_receipt(
    key: Unlocked,
    tpm: HostTpm,
    situation: Situation,
    *,
    outcome: Literal["opened", "retained"] = "opened",
    reason: str = "",
) -> bytes:
    """Write the receipt of a release that was opened."""
    return attested_receipt(
        key.entry,
        outcome=outcome,
        reason=reason,
        approvals=key.approvals,
        bad_shares=key.bad_shares,
        tpm=tpm,
        now=situation.now,
    )
