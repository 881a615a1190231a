"""Ask and open with keys in an HSM, on a host without a TPM.  Format: keyrequest.md.

The pipeline is that of `ops.open`: every rule, then a device opens the shares, then commitments.
What differs is the device.  It opens whatever its PIN is given for, so that nothing here can prove
that a request was opened once, nor that it opens nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from custody.crypto.keyslots import is_hpke
from custody.crypto.signature import public_bytes
from custody.encoding import Digest, format_time, sha256
from custody.errors import Refused, Unavailable
from custody.formats.contents import Contents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyReceipt, KeyRequest, KeyTerms
from custody.formats.manifest import Manifest
from custody.formats.policy import ShareKey
from custody.formats.receipt import BadShare
from custody.ops.bundle import Bundle
from custody.ops.folders import read_file, read_statement_file
from custody.ops.keys import ShareOpener, Signer
from custody.ops.landing import (
    check_absent,
    disk_errors,
    replace_file,
    resumable_directory,
    unfinished_output,
)
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.released import Released, Shares, released, verified_release
from custody.ops.request import last_head
from custody.rules.asking import check_asked
from custody.rules.manifest import check_manifest
from custody.rules.situation import Situation
from custody.rules.verdicts import require

_NONCE_BYTES = 32
_MAX_PATH_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class KeyHost:
    """A host's keys in one login of its HSM, where it keeps receipts, and the site's keys."""

    signer: Signer
    opener: ShareOpener
    receipts: Path
    site: tuple[ShareOpener, ...] = ()

    def receipt_path(self, request: Digest) -> Path:
        """Return where the receipt of a request is kept."""
        return self.receipts / f"{request}.keyreceipt.dsse"

    def place_path(self, request: Digest) -> Path:
        """Return where it is noted at which place the one opening of a request was to appear."""
        return self.receipts / f"{request}.place"


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
    receipt here is `Refused` (``host.ended``): honest hosts open once.  An interrupted run leaves
    nothing under ``target``, and another one goes on from what it left.  Raises as
    `ops.open.open_release` does.
    """
    check_absent(target)
    _check_mine(request, host)
    _check_not_ended(request, target, host)
    release = verified_release(bundle, request, situation, host.site)

    def opening(shares: Shares) -> None:
        shares.open(release, host.opener.key, host.opener.mlkem_seed or b"", situation)

    with released(bundle, opening, situation=situation, site=host.site) as found:
        path = host.receipt_path(request.digest)
        landed = False
        try:
            with resumable_directory(target, request.digest[:16]) as staging:
                open_into(
                    bundle.path,
                    staging,
                    core=bundle.core,
                    contents=found.contents,
                    cek=found.cek,
                    base=base,
                    progress=progress,
                )
                data = _receipt(request, host, situation, "opened", "", found)
                replace_file(host.place_path(request.digest), _place(target), mode=0o600)
                # Before the model appears: no model is ever there without a word of it.
                replace_file(path, data, mode=0o644)
            landed = True
        finally:
            if not landed and not target.exists():
                with suppress(Unavailable), disk_errors(path):
                    path.unlink(missing_ok=True)
    return OpenedByKey(
        contents=found.contents,
        receipt=decode_statement(KeyReceipt, data),
        receipt_data=data,
        officers=tuple(approval.officer for approval in release.approvals),
        bad_shares=found.bad_shares,
    )


def give_up_by_key(
    request: Statement[KeyRequest], *, situation: Situation, host: KeyHost, reason: str
) -> bytes:
    """Sign that a request was not opened; one that says otherwise already stays."""
    _check_mine(request, host)
    path = host.receipt_path(request.digest)
    if path.exists():
        raise _ended(path, request)
    data = _receipt(request, host, situation, "failed", reason, None)
    replace_file(path, data, mode=0o644)
    return data


def _check_mine(request: Statement[KeyRequest], host: KeyHost) -> None:
    if request.predicate.author != host.signer.key_id:
        raise Refused("another host made this request", check="host.key")


def _check_not_ended(request: Statement[KeyRequest], target: Path, host: KeyHost) -> None:
    path, noted = host.receipt_path(request.digest), host.place_path(request.digest)
    if not path.exists():
        return
    # Killed between the receipt and the model, a run left what the next one goes on from: there
    # alone, or what lies unfinished at another place would be a second opening.
    opened = read_statement_file(KeyReceipt, path).predicate.outcome == "opened"
    unfinished = unfinished_output(target, request.digest[:16]) is not None
    if not (opened and unfinished and noted.exists() and _is_place(noted, target)):
        raise _ended(path, request)


def _place(target: Path) -> bytes:
    return os.fsencode(target.absolute())


def _is_place(noted: Path, target: Path) -> bool:
    return read_file(noted, max_bytes=_MAX_PATH_BYTES) == _place(target)


def _ended(path: Path, request: Statement[KeyRequest]) -> Refused:
    said = read_statement_file(KeyReceipt, path).predicate
    how = "was opened" if said.outcome == "opened" else "was given up"
    return Refused(
        f"{how} at {format_time(said.finished_at)}",
        check="host.ended",
        where=f"request {request.digest[:16]}",
        hint=f"its receipt is {path}",
    )


def _receipt(
    request: Statement[KeyRequest],
    host: KeyHost,
    situation: Situation,
    outcome: Literal["opened", "failed"],
    reason: str,
    found: Released | None,
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
            approvals=found.approvals if found else (),
            bad_shares=found.bad_shares if found else (),
            finished_at=situation.now,
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
