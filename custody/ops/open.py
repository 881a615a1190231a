"""Open a bundle on the host its quorum released it to.  Protocol section 6, "Host".

The order is the defence: every rule first, then the TPM, which by itself refuses a short quorum,
then commitments, then the content key's commitment, then every part; and only when the whole model
has verified does it appear under its name.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import approval_info, commitment, unwrap
from custody.crypto.keyslots import open as open_slot
from custody.crypto.parts import check_cek
from custody.crypto.quorum import Node, combine, leaves, satisfied
from custody.crypto.secret import Octets, wipe
from custody.encoding import Digest
from custody.errors import Incomplete, Refused, Unavailable
from custody.formats.approval import Approval
from custody.formats.contents import Contents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import Core, Manifest
from custody.formats.receipt import BadShare, Receipt
from custody.formats.request import Request
from custody.keys.hostapi import HostPolicyPlan, HostTpm
from custody.ops.ahead import Ahead
from custody.ops.bundle import Bundle
from custody.ops.kept import forget, retain
from custody.ops.keys import ShareOpener
from custody.ops.landing import check_absent, disk_errors, replace_file, resumable_directory
from custody.ops.model_signature import resources_of, verify_model
from custody.ops.outstanding import Landing, Outstanding, check_alive
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.receipts import Burnt, HostPlace, attested_receipt, burn
from custody.ops.site_half import check_site_key, open_site_half
from custody.rules.approvals import JudgedApproval
from custody.rules.attestation import conditions_of
from custody.rules.logged import JudgedLogged
from custody.rules.quorum import LOG_PATH, signing_path, signing_tree
from custody.rules.release import Answers, Judgement, VerifiedRelease, judge, verified
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


@dataclass(slots=True)
class _Shares:
    """Shares that opened and match their commitment, those that did not, and whose they are."""

    good: dict[str, bytearray]
    bad: list[BadShare]
    approvals: list[Digest]

    def wipe(self) -> None:
        wipe(*self.good.values())


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
    beside it.  One killed after the model appeared only finishes the burn.  Where the terms say so
    the key is kept for restarts (`ops.kept`), and the receipt says so.  Raises `Incomplete` naming
    who has not approved, `Refused` with the first check that fails, ``base.missing`` or
    ``base.different`` among them.
    """
    entry = place.find(request.digest)
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
                receipt = _kept_or_opened(key, tpm, situation, place)
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
    release = verified(judge_answers(bundle.statement, request, situation))
    check_site_key(bundle.statement.predicate, site)
    # Shares come back over the bus: encrypted to nobody but the TPM the enrollers vouch for.
    salted = tpm.salted_to(endorsement_key(enrolment_of(request, situation).predicate))
    shares = _Shares(good={}, bad=[], approvals=[])
    try:
        with salted.conversation():
            _open_shares(shares, release, entry, tpm=salted, situation=situation)
        tree = _sealed_tree(bundle.core, situation)
        cek = _content_key(bundle.core, bundle, shares, tree, site)
    finally:
        shares.wipe()
    try:
        contents = bundle.contents_under(cek)
        _check_model_signature(contents, bundle.core, situation)
        yield Unlocked(
            contents=contents,
            entry=entry,
            release=release,
            approvals=tuple(sorted(shares.approvals)),
            bad_shares=tuple(shares.bad),
            cek=cek,
        )
    finally:
        wipe(cek)


def judge_answers(
    manifest: Statement[Manifest], request: Statement[Request], situation: Situation
) -> Judgement:
    """Judge a release by the answers among ``situation.documents``; nothing is opened."""
    answers = Answers(
        approvals=[
            a for a in situation.documents.approvals if a.predicate.request == request.digest
        ],
        denials=situation.documents.denials,
        logged=[w for w in situation.documents.logged if w.predicate.request == request.digest],
    )
    return judge(manifest, request, answers, situation)


def interrupted(entry: Outstanding, target: Path, place: HostPlace) -> bool:
    """Whether an earlier run opened this request into ``target`` and died before the burn.

    It must be the very directory that run made.  Any other one of that name would have us burn
    the approvals for a model that nobody got.
    """
    landing = entry.landing
    if landing is None or landing.target != str(target.absolute()):
        return False
    return landing.done() and place.receipt_path(entry.request).exists()


def _kept_or_opened(key: Unlocked, tpm: HostTpm, situation: Situation, place: HostPlace) -> bytes:
    """Keep the content key where the terms say so; write the receipt that tells of it."""
    request = key.release.request
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


def _sealed_tree(core: Core, situation: Situation) -> Node:
    sealed_for = situation.trusted.version(core.policy_version)
    if sealed_for is None:
        raise Refused("the policy it was sealed for is not known here", check="manifest.tree")
    return sealed_for.quorum


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


def _open_shares(
    shares: _Shares,
    release: VerifiedRelease,
    entry: Outstanding,
    *,
    tpm: HostTpm,
    situation: Situation,
) -> None:
    """Open every share in the TPM; drop a bad one, name its officer, carry on with the rest.

    The caller made ``shares`` and wipes it, however this ends.
    """
    plan = host_plan(
        release.request, release.approvals, entry.counter_index, situation, release.logged
    )
    key = tpm.open_host_key(entry.host_key, plan)
    core = release.manifest.predicate.core
    xs = {leaf.path: leaf.x for leaf in leaves(_sealed_tree(core, situation))}
    seed = tpm.unseal_seed(entry.seed, plan) if entry.seed else bytearray()
    try:
        # An officer whose share came out bad may have answered again.
        for approval in (*release.approvals, *release.spares):
            said = approval.statement.predicate
            if said.leaf in shares.good:
                continue
            shares.approvals.append(approval.statement.digest)
            opened = _open_share(approval, release.request, key, seed)
            share, salt = opened[:_SHARE_BYTES], opened[_SHARE_BYTES:]
            found = commitment(core.binding(), said.leaf, xs[said.leaf], share, salt)
            wanted = bytes.fromhex(release.manifest.predicate.commitment(said.leaf) or "")
            if hmac.compare_digest(found, wanted):
                shares.good[said.leaf] = share
            else:
                shares.bad.append(_bad(approval, said))
                wipe(share)
            wipe(opened)
    finally:
        wipe(seed)


def _open_share(
    approval: JudgedApproval,
    request: Statement[Request],
    key: ec.EllipticCurvePrivateKey,
    seed: bytearray,
) -> bytearray:
    """Open one share ‖ salt in the TPM; one that does not open is empty, and so a bad one."""
    said = approval.statement.predicate
    info = approval_info(request.digest, said.leaf, approval.key)
    suite, half = request.predicate.suite, bytes(seed) or None
    try:
        return bytearray(open_slot(suite, key, half, said.sealed_share, info=info))
    except Refused as error:
        if error.check != "slot.open":
            raise
        return bytearray()


def _bad(approval: JudgedApproval, said: Approval) -> BadShare:
    return BadShare(leaf=said.leaf, officer=approval.key, approval=approval.statement.digest)


def _content_key(
    core: Core, bundle: Bundle, shares: _Shares, tree: Node, site: Sequence[ShareOpener]
) -> bytearray:
    """Combine the shares and unwrap the content key with what they, and a site, give."""
    if shares.bad and not satisfied(tree, shares.good):
        leaf = next(bad for bad in shares.bad if bad.leaf not in shares.good)
        raise Incomplete(
            f"the share at leaf {leaf.leaf} is bad (officer key {leaf.officer[:16]}), and without "
            "it the quorum is not complete",
            missing=[bad.leaf for bad in shares.bad],
            hint="another officer of the same group must approve",
        )
    half = open_site_half(bundle.statement.predicate, site)
    release_secret = combine(tree, dict[str, Octets](shares.good))
    both = release_secret + half
    try:
        wrap = bundle.statement.predicate.wrap("cek")
        cek = bytearray(unwrap(both, wrap.salt, wrap.sealed, C=core.binding(), purpose="cek"))
    finally:
        wipe(release_secret, half, both)
    check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
    return cek


def _check_model_signature(contents: Contents, core: Core, situation: Situation) -> None:
    """Refuse contents whose file table is not exactly what the publisher's model.sig is over."""
    key = situation.trusted.policy.signing_key(core.publisher)
    if key is None:
        raise Refused("the policy in force lists no such publisher", check="model.key")
    verify_model(contents.model_signature, resources_of(contents.files), spki=key.spki)


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
