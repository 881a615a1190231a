"""Ask and open with keys in an HSM, on a host without a TPM.  Format: keyrequest.md.

The pipeline is that of `ops.open`: every rule, then a device opens the shares, then commitments.
What differs is the device.  It opens whatever its PIN is given for, so that nothing here can prove
that a request was opened once, nor that it opens nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from custody.crypto.keyslots import is_hpke
from custody.crypto.signature import public_bytes
from custody.encoding import Digest, encode, format_time, sha256
from custody.errors import Refused, Unavailable
from custody.formats.contents import Contents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyReceipt, KeyRequest, KeyTerms
from custody.formats.manifest import Manifest
from custody.formats.policy import ShareKey
from custody.formats.receipt import BadShare
from custody.ops.bundle import Bundle
from custody.ops.keyplace import KeyPlace, ended
from custody.ops.keys import ShareOpener, Signer
from custody.ops.landing import check_absent, replace_file, resumable_directory
from custody.ops.outstanding import Landing
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.reader import Reader, open_reader
from custody.ops.released import Released, Shares, released, verified_release
from custody.ops.request import last_head
from custody.ops.unlock import READ_IN_MEMORY
from custody.rules.asking import check_asked
from custody.rules.manifest import check_manifest
from custody.rules.release import VerifiedRelease
from custody.rules.situation import Situation
from custody.rules.verdicts import require

_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyHost:
    """A host's keys in one login of its HSM, what it keeps of its requests, and the site's keys.

    ``clock`` tells what time it is when something has ended that may have taken hours.
    """

    signer: Signer
    opener: ShareOpener
    place: KeyPlace
    clock: Callable[[], datetime]
    site: tuple[ShareOpener, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedByKey:
    """A key request and its file."""

    statement: Statement[KeyRequest]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedByKey:
    """What opening a bundle came to."""

    contents: Contents
    receipt: Statement[KeyReceipt]
    receipt_data: bytes
    officers: tuple[str, ...]
    bad_shares: tuple[BadShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadByKey:
    """A released bundle that this process can read, and what opening it came to."""

    reader: Reader
    opened: OpenedByKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedByKey:
    """A release that the HSM has opened, and the key to its payload for as long as that lasts."""

    request: Statement[KeyRequest]
    release: VerifiedRelease
    key: Released

    def receipt(self, situation: Situation, host: KeyHost, *, reason: str = "") -> bytes:
        """Sign that it was opened, now; too late: `Refused`."""
        now = _in_time(self.release, self.key.approvals, situation, host)
        return _receipt(self.request, host, now, outcome="opened", reason=reason, key=self.key)

    def opened(self, receipt: bytes) -> OpenedByKey:
        """Say what came of it; needs no key any more."""
        return OpenedByKey(
            contents=self.key.contents,
            receipt=decode_statement(KeyReceipt, receipt),
            receipt_data=receipt,
            officers=tuple(approval.officer for approval in self.release.approvals),
            bad_shares=self.key.bad_shares,
        )


def request_by_key(
    manifest: Statement[Manifest], *, situation: Situation, host: KeyHost
) -> AskedByKey:
    """Make a key request for ``manifest``, judged here as officers will judge it.

    Raises `Refused` with the first check that fails: where the policy takes no such hosts, say.
    """
    require(check_manifest(manifest, situation))
    policy = situation.trusted.policy
    holder = policy.holder(host.signer.key_id)
    keys = holder.keys if holder is not None else ()
    listed = next((key for key in keys if key.key_id == host.opener.recipient), None)
    if holder is None or not isinstance(listed, ShareKey) or not is_hpke(listed.suite):
        raise Refused(
            f"policy version {policy.version} lists no such host",
            check="keyrequest.host",
            hint="custody host admit, then ask the custodians to list it",
        )
    seen = last_head(situation)
    window = timedelta(seconds=policy.limits.request_window_seconds)
    said = KeyRequest(
        author=host.signer.key_id,
        terms=KeyTerms(
            manifest=manifest.digest,
            policy=situation.trusted.digest,
            recipient=listed.key_id,
            nonce=os.urandom(_NONCE_BYTES).hex(),
            deadline=situation.now + window,
            checkpoint=None if seen is None else sha256(seen.checkpoint.text().encode()).hex(),
        ),
        environment=situation.trusted.genesis,
        host=holder.id,
        signer=host.signer.spki,
        suite=listed.suite,
        recipient=public_bytes(host.opener.key.public_key()),
        mlkem=host.opener.mlkem_public,
        requested_at=situation.now,
        checkpoint=None if seen is None else seen.encode(),
    )
    data = host.signer.statement(said)
    statement = decode_statement(KeyRequest, data)
    require(check_asked(statement, manifest, situation))
    host.place.remember(statement, manifest)
    return AskedByKey(statement=statement, data=data)


def open_by_key(
    bundle: Bundle,
    request: Statement[KeyRequest],
    target: Path,
    *,
    situation: Situation,
    host: KeyHost,
    base: Path | None = None,
    progress: Progress = silent,
) -> OpenedByKey:
    """Open ``bundle`` into the new directory ``target``, and sign a receipt.

    Consents, approvals and denials are taken from ``situation.documents``.  A request that has its
    receipt here is `Refused` (``host.ended``), and one that another process is at (``host.busy``):
    honest hosts open once.  So is one whose deadline, or an approval of which, ends before the
    model is whole (``keyrequest.deadline``, ``receipt.time``).  An interrupted run leaves nothing
    under ``target``, and another one goes on from what it left.  Raises as `ops.open.open_release`
    does.
    """
    _check_mine(request, host)
    with host.place.alone(request.digest):
        host.place.check_not_ended(request.digest, target)
        check_absent(target)
        with _released(bundle, request, situation, host) as found:
            data = _land(bundle, request, target, found, situation, host, base, progress)
        with suppress(Unavailable):
            host.place.leave(request.digest)
    return found.opened(data)


def _land(
    bundle: Bundle,
    request: Statement[KeyRequest],
    target: Path,
    found: ReleasedByKey,
    situation: Situation,
    host: KeyHost,
    base: Path | None,
    progress: Progress,
) -> bytes:
    """Write the model, and its receipt before it appears; take that back if it does not.

    A receipt that a killed run left stays the one receipt: the model was whole when it was signed.
    """
    landing: Landing | None = None
    earlier = host.place.receipt(request.digest)
    host.place.begin(request.digest, target)
    try:
        with resumable_directory(target, request.digest[:16]) as staging:
            open_into(
                bundle.path,
                staging,
                core=bundle.core,
                contents=found.key.contents,
                cek=found.key.cek,
                base=base,
                progress=progress,
            )
            data = encode(earlier.envelope) if earlier else found.receipt(situation, host)
            landing = Landing.of(target, staging)
            # Before the model appears: no model is ever there without a word of it.
            replace_file(host.place.receipt_path(request.digest), data, mode=0o644)
    except BaseException:
        # Unless the model is there, and only the disk's word on it is missing.
        if earlier is None and not (landing is not None and landing.done()):
            with suppress(Unavailable):
                host.place.take_back(request.digest)
        raise
    return data


@contextmanager
def read_by_key(
    bundle: Bundle,
    request: Statement[KeyRequest],
    *,
    situation: Situation,
    host: KeyHost,
    files: Sequence[str] = (),
    base: Path | None = None,
    workers: int | None = None,
) -> Iterator[ReadByKey]:
    """Give a reader of ``bundle`` for the block, with nothing written, and sign a receipt.

    It is the one opening of its request, spent when the block begins: a process that ends must ask
    again.  A request that was opened to a disk is `Refused` (``host.ended``), for this would be a
    second opening.  Else as `ops.unlock.unlock_release`, whose parameters these are.
    """
    _check_mine(request, host)
    place = host.place
    with ExitStack() as alone:
        alone.enter_context(place.alone(request.digest))
        receipt = place.receipt(request.digest)
        if receipt is not None and receipt.predicate.outcome == "opened":
            at = format_time(receipt.predicate.finished_at)
            raise ended(
                request.digest,
                f"was opened at {at}: to read from the bundle would open it once more; read the "
                "model that was opened then, or ask again",
            )
        place.check_not_ended(request.digest)
        with _released(bundle, request, situation, host) as found:
            reader = open_reader(
                bundle, found.key.contents, found.key.cek, base=base, workers=workers
            )
        with reader:
            for name in files:
                reader.file(name)
            data = found.receipt(situation, host, reason=READ_IN_MEMORY)
            place.leave(request.digest)
            replace_file(place.receipt_path(request.digest), data, mode=0o644)
            # From here on the receipt keeps others from it.
            alone.close()
            yield ReadByKey(reader=reader, opened=found.opened(data))


def give_up_by_key(
    request: Statement[KeyRequest], *, situation: Situation, host: KeyHost, reason: str
) -> bytes:
    """Sign that a request was not opened; one that says otherwise already stays.

    What was opened half way is removed.
    """
    _check_mine(request, host)
    with host.place.alone(request.digest):
        host.place.check_not_ended(request.digest)
        now = max(situation.now, host.clock())
        data = _receipt(request, host, now, outcome="failed", reason=reason, key=None)
        # Before the receipt, after which nobody would look for what lies half opened.
        host.place.leave(request.digest)
        replace_file(host.place.receipt_path(request.digest), data, mode=0o644)
    return data


@contextmanager
def _released(
    bundle: Bundle, request: Statement[KeyRequest], situation: Situation, host: KeyHost
) -> Iterator[ReleasedByKey]:
    """Judge by every rule, then have the HSM open the shares."""
    release = verified_release(bundle, request, situation, host.site)

    def opening(shares: Shares) -> None:
        # A PIN may have been waited for since the rules were asked.
        given = [approval.statement.digest for approval in release.approvals]
        _in_time(release, given, situation, host)
        shares.open(release, host.opener.key, host.opener.mlkem_seed or b"", situation)

    with released(bundle, opening, situation=situation, site=host.site) as key:
        yield ReleasedByKey(request=request, release=release, key=key)


def _in_time(
    release: VerifiedRelease, approvals: Collection[Digest], situation: Situation, host: KeyHost
) -> datetime:
    """Return what time it is, unless that is too late to have opened by these approvals.

    An HSM stops at no deadline.  What is opened later would be held against the host by every
    auditor, and rightly: so it is not kept.
    """
    # Never before what everything else was judged at, whatever was done to the clock since.
    now, ends_at = max(situation.now, host.clock()), release.request.predicate.ends_at
    late = "; nothing of it is kept"
    if ends_at is not None and now >= ends_at:
        raise Refused(
            f"its deadline, {format_time(ends_at)}, passed while it was being opened{late}",
            check="keyrequest.deadline",
            hint="ask again: custody host request-by-key, and the officers in both rounds",
        )
    for approval in (*release.approvals, *release.spares):
        until = approval.statement.predicate.expires_at
        if approval.statement.digest in approvals and now >= until:
            raise Refused(
                f"{approval.officer}'s approval ended at {format_time(until)}, while it was being "
                f"opened{late}",
                check="receipt.time",
                hint=f"{approval.officer} must approve once more",
            )
    return now


def _check_mine(request: Statement[KeyRequest], host: KeyHost) -> None:
    if request.predicate.author != host.signer.key_id:
        raise Refused("another host made this request", check="host.key")


def _receipt(
    request: Statement[KeyRequest],
    host: KeyHost,
    now: datetime,
    *,
    outcome: Literal["opened", "failed"],
    reason: str,
    key: Released | None,
) -> bytes:
    terms = request.predicate.terms
    return host.signer.statement(
        KeyReceipt(
            author=host.signer.key_id,
            request=request.digest,
            manifest=terms.manifest,
            terms=terms.digest().hex(),
            outcome=outcome,
            reason=reason,
            approvals=key.approvals if key else (),
            bad_shares=key.bad_shares if key else (),
            finished_at=now,
        )
    )


def listed_opener(openers: Sequence[ShareOpener], situation: Situation) -> ShareOpener:
    """Return the key of this host that the policy lists; none: `Refused` (``keyrequest.host``)."""
    policy = situation.trusted.policy
    for opener in openers:
        if policy.holder(opener.recipient) is not None:
            return opener
    raise Refused(
        f"policy version {policy.version} lists no share key of this host", check="keyrequest.host"
    )
