"""From a judged release to its content key, whatever device opens the shares.  Protocol section 6.

Every rule has passed before this begins.  A share that does not match its commitment is dropped,
and its officer named; the content key is held against its own commitment, and wiped in the end.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from custody.crypto.keyslots import SlotKey, approval_info, commitment, unwrap
from custody.crypto.keyslots import open as open_slot
from custody.crypto.parts import check_cek
from custody.crypto.quorum import Node, combine, leaves, satisfied
from custody.crypto.secret import Octets, wipe
from custody.encoding import Digest
from custody.errors import Incomplete, Refused
from custody.formats.approval import Approval
from custody.formats.asking import Asking
from custody.formats.contents import Contents
from custody.formats.envelope import Statement
from custody.formats.manifest import Core, Manifest
from custody.formats.receipt import BadShare
from custody.ops.bundle import Bundle
from custody.ops.keys import ShareOpener
from custody.ops.model_signature import resources_of, verify_model
from custody.ops.site_half import check_site_key, open_site_half
from custody.rules.approvals import JudgedApproval
from custody.rules.release import Answers, Judgement, VerifiedRelease, judge, verified
from custody.rules.situation import Situation

_SHARE_BYTES = 32


@dataclass(slots=True)
class Shares:
    """Shares that opened and match their commitment, those that did not, and whose they are."""

    good: dict[str, bytearray]
    bad: list[BadShare]
    approvals: list[Digest]

    def open(
        self, release: VerifiedRelease, key: SlotKey, seed: Octets, situation: Situation
    ) -> None:
        """Open every share; drop a bad one, name its officer, carry on with the rest."""
        core = release.manifest.predicate.core
        xs = {leaf.path: leaf.x for leaf in leaves(_sealed_tree(core, situation))}
        # An officer whose share came out bad may have answered again.
        for approval in (*release.approvals, *release.spares):
            said = approval.statement.predicate
            if said.leaf in self.good:
                continue
            self.approvals.append(approval.statement.digest)
            opened = _open_share(approval, release.request, key, seed)
            share, salt = opened[:_SHARE_BYTES], opened[_SHARE_BYTES:]
            found = commitment(core.binding(), said.leaf, xs[said.leaf], share, salt)
            wanted = bytes.fromhex(release.manifest.predicate.commitment(said.leaf) or "")
            if hmac.compare_digest(found, wanted):
                self.good[said.leaf] = share
            else:
                self.bad.append(_bad(approval, said))
                wipe(share)
            wipe(opened)

    def wipe(self) -> None:
        """Overwrite the shares."""
        wipe(*self.good.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A released bundle's contents, and the key to its payload, for as long as `released` lasts."""

    contents: Contents
    approvals: tuple[Digest, ...]
    bad_shares: tuple[BadShare, ...]
    cek: bytearray = field(repr=False)


def judge_answers(
    manifest: Statement[Manifest], request: Statement[Asking], situation: Situation
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


def verified_release(
    bundle: Bundle,
    request: Statement[Asking],
    situation: Situation,
    site: Sequence[ShareOpener],
) -> VerifiedRelease:
    """Judge a release by every rule, and see that the site's HSM it takes is at hand."""
    release = verified(judge_answers(bundle.statement, request, situation))
    check_site_key(bundle.statement.predicate, site)
    return release


@contextmanager
def released(
    bundle: Bundle,
    opening: Callable[[Shares], None],
    *,
    situation: Situation,
    site: Sequence[ShareOpener] = (),
) -> Iterator[Released]:
    """Give the content key for the block; ``opening`` has a device open the shares."""
    shares = Shares(good={}, bad=[], approvals=[])
    try:
        opening(shares)
        tree = _sealed_tree(bundle.core, situation)
        cek = _content_key(bundle.core, bundle, shares, tree, site)
    finally:
        shares.wipe()
    try:
        contents = bundle.contents_under(cek)
        _check_model_signature(contents, bundle.core, situation)
        yield Released(
            contents=contents,
            approvals=tuple(sorted(shares.approvals)),
            bad_shares=tuple(shares.bad),
            cek=cek,
        )
    finally:
        wipe(cek)


def _sealed_tree(core: Core, situation: Situation) -> Node:
    sealed_for = situation.trusted.version(core.policy_version)
    if sealed_for is None:
        raise Refused("the policy it was sealed for is not known here", check="manifest.tree")
    return sealed_for.quorum


def _open_share(
    approval: JudgedApproval,
    request: Statement[Asking],
    key: SlotKey,
    seed: Octets,
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
    core: Core, bundle: Bundle, shares: Shares, tree: Node, site: Sequence[ShareOpener]
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
