"""An officer reviews requests, and answers them.  Protocol section 6, "Officer"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from custody.crypto.keyslots import approval_info, commitment, slot_info
from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import seal as seal_slot
from custody.crypto.quorum import Node, leaves
from custody.crypto.secret import wipe
from custody.crypto.signature import sign
from custody.encoding import check_text
from custody.errors import Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.contents import Contents
from custody.formats.envelope import Statement, of_kind
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import KeySlot, Manifest
from custody.formats.policy import TokenClass, TrustClass
from custody.formats.request import Request
from custody.ops.answers import Answered, keep_answers
from custody.ops.bundle import Bundle
from custody.ops.folders import reading
from custody.ops.home import Home
from custody.ops.keys import ShareOpener, Signer
from custody.ops.model_signature import judge_contents
from custody.ops.officers import answer_lifetime, check_may_approve, officer_of
from custody.rules.approvals import Tally, tally
from custody.rules.asking import check_asked
from custody.rules.manifest import check_manifest
from custody.rules.memory import remember_request
from custody.rules.quorum import leaf_of, policy_signed_bytes
from custody.rules.request import enrolment_of, golden_of
from custody.rules.situation import Situation
from custody.rules.verdicts import Verdict, passed, require

_SHARE_BYTES = 32
_PREVIOUS = frozenset(
    {"manifest.author", "manifest.signature", "manifest.publisher", "manifest.environment"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that differs from the previous release; a digest is empty where there is none."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a release changes since the previous one."""

    previous_name: str
    previous_version: str
    files: tuple[FileChange, ...]
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRequest:
    """One request, every check made on it, and where its quorum stands."""

    statement: Statement[Asking]
    verdicts: tuple[Verdict, ...]
    host: str
    trust_class: TrustClass
    golden: GoldenSet | None
    tally: Tally

    @property
    def sound(self) -> bool:
        """Whether every check held."""
        return passed(self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What an officer is asked to consent to.  ``contents`` and ``changes`` need his share key."""

    manifest: Statement[Manifest]
    verdicts: tuple[Verdict, ...]
    publisher: str
    publisher_token: TokenClass | None
    contents: Contents | None
    changes: Changes | None
    requests: tuple[ReviewedRequest, ...]


def review_requests(
    bundle: Bundle,
    requests: Sequence[Statement[Asking]],
    *,
    situation: Situation,
    opener: ShareOpener | None = None,
    previous: Bundle | None = None,
) -> Review:
    """Judge a bundle and requests for it; nothing is signed.

    ``opener`` reads the confidential contents; with ``previous``, the last release of the same
    model, the review says what changes.
    """
    manifest = bundle.statement
    holder = situation.trusted.policy.holder(manifest.predicate.core.publisher)
    publisher = situation.trusted.policy.signing_key(manifest.predicate.core.publisher)
    contents = bundle.contents_for(opener) if opener else None
    changes = None
    if contents is not None and previous is not None and opener is not None:
        _check_previous(previous, situation)
        changes = compare_contents(previous.contents_for(opener), contents)
    return Review(
        manifest=manifest,
        verdicts=(
            *check_manifest(manifest, situation),
            *judge_contents(contents, publisher.spki if publisher else None),
        ),
        publisher=holder.id if holder else "nobody the policy knows",
        publisher_token=publisher.token_class if publisher else None,
        contents=contents,
        changes=changes,
        requests=tuple(_review_one(request, manifest, situation) for request in requests),
    )


def _check_previous(previous: Bundle, situation: Situation) -> None:
    """Refuse a "previous release" that no publisher of this environment signed.

    Anybody can seal something to an officer's key, and make a review say that nothing changes.
    It may well have expired, or been withdrawn.
    """
    judged = check_manifest(previous.statement, situation)
    with reading(previous.path):
        require(v for v in judged if v.check in _PREVIOUS)


def _review_one(
    request: Statement[Asking], manifest: Statement[Manifest], situation: Situation
) -> ReviewedRequest:
    by_tpm = of_kind(Request, request)
    enrolment = enrolment_of(by_tpm, situation).predicate if by_tpm is not None else None
    return ReviewedRequest(
        statement=request,
        verdicts=check_asked(request, manifest, situation),
        host=enrolment.host if enrolment is not None else request.predicate.host,
        trust_class=enrolment.trust_class if enrolment is not None else "hsm-key",
        golden=golden_of(by_tpm, situation).predicate if by_tpm is not None else None,
        tally=tally(
            [a for a in situation.documents.approvals if a.predicate.request == request.digest],
            situation.documents.denials,
            request,
            manifest,
            situation,
        ),
    )


def compare_contents(before: Contents, after: Contents) -> Changes:
    """Say which files a release adds, removes or changes."""
    old = {file.name: file.sha256 for file in before.files}
    new = {file.name: file.sha256 for file in after.files}
    changed = [
        FileChange(name=name, before=old.get(name, ""), after=new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return Changes(
        previous_name=before.name,
        previous_version=before.version,
        files=tuple(changed),
        unchanged=sum(old.get(name) == digest for name, digest in new.items()),
    )


def approve_requests(
    bundle: Bundle,
    requests: Sequence[Statement[Asking]],
    *,
    situation: Situation,
    home: Home,
    signer: Signer,
    opener: ShareOpener,
    lifetime: timedelta | None = None,
) -> tuple[Answered, ...]:
    """Consent to every request, all or none: open this officer's share once, seal it to each H.

    ``lifetime`` (whole seconds) is at most the policy's, which it is without one.  Raises `Refused`
    with the first check that fails, and ``share.commitment`` when the share itself is bad: then
    publisher or storage is at fault; `Incomplete` where consents are taken first and are too few.
    """
    manifest = bundle.statement
    lifetime = answer_lifetime(lifetime, situation)
    require(check_manifest(manifest, situation))
    for request in requests:
        require(check_asked(request, manifest, situation))
    # Before the token is asked for anything.
    officer = check_may_approve(manifest, requests, situation, home, signer)
    slot = _own_slot(manifest, officer, opener, situation)
    secret = bytearray(_open_share(manifest.predicate, slot, opener, situation))
    try:
        answers = [
            _approval(
                request, slot.leaf, secret, situation=situation, signer=signer, lifetime=lifetime
            )
            for request in requests
        ]
    finally:
        wipe(secret)
    _remember(home, requests)
    return keep_answers(home, Approval, requests, answers)


def deny_requests(
    manifest: Statement[Manifest],
    requests: Sequence[Statement[Asking]],
    *,
    reason: str,
    situation: Situation,
    home: Home,
    signer: Signer,
) -> tuple[Answered, ...]:
    """Refuse requests, for the record.  A denial needs no sound request: it may be why."""
    with reading("reason"):
        check_text(reason)
    officer_of(signer, situation)
    denials = [
        signer.statement(
            Denial(
                author=signer.key_id,
                request=request.digest,
                manifest=manifest.digest,
                policy=situation.trusted.digest,
                terms=request.predicate.terms.digest().hex(),
                reason=reason,
                denied_at=situation.now,
            )
        )
        for request in requests
    ]
    return keep_answers(home, Denial, requests, denials)


def _own_slot(
    manifest: Statement[Manifest], officer: str, opener: ShareOpener, situation: Situation
) -> KeySlot:
    leaf = leaf_of(_tree(manifest.predicate, situation), officer)
    for slot in manifest.predicate.slots_for(opener.recipient):
        if slot.purpose == "share" and leaf is not None and slot.leaf == leaf.path:
            return slot
    raise Refused(
        "no share of this bundle is sealed to your key",
        check="approve.slot",
        hint="it was sealed before you, or this token, joined; the publisher must seal again",
    )


def _tree(manifest: Manifest, situation: Situation) -> Node:
    """Return the tree the bundle was sealed by; `check_manifest` made sure it is known."""
    sealed_for = situation.trusted.version(manifest.core.policy_version)
    if sealed_for is None:
        raise Refused("the policy it was sealed for is not known here", check="manifest.tree")
    return sealed_for.quorum


def _open_share(
    manifest: Manifest, slot: KeySlot, opener: ShareOpener, situation: Situation
) -> bytes:
    """Open the share in the token and hold it against its commitment."""
    binding = manifest.core.binding()
    info = slot_info(binding, "share", slot.leaf, slot.recipient)
    secret = open_slot(slot.suite, opener.key, opener.mlkem_seed, slot.sealed, info=info)
    leaf = next(leaf for leaf in leaves(_tree(manifest, situation)) if leaf.path == slot.leaf)
    share, salt = secret[:_SHARE_BYTES], secret[_SHARE_BYTES:]
    if commitment(binding, leaf.path, leaf.x, share, salt).hex() != manifest.commitment(slot.leaf):
        raise Refused(
            "your share does not match its commitment: the publisher or the storage is at fault",
            check="share.commitment",
        )
    return secret


def _approval(
    request: Statement[Asking],
    leaf: str,
    secret: bytearray,
    *,
    situation: Situation,
    signer: Signer,
    lifetime: timedelta,
) -> bytes:
    body = request.predicate
    terms = body.terms.digest()
    return signer.statement(
        Approval(
            request=request.digest,
            manifest=body.terms.manifest,
            policy=situation.trusted.digest,
            terms=terms.hex(),
            leaf=leaf,
            sealed_share=seal_slot(
                body.suite,
                body.recipient,
                body.mlkem,
                secret,
                info=approval_info(request.digest, leaf, signer.key_id),
            ),
            terms_signature=sign(signer.key, policy_signed_bytes(terms)),
            approved_at=situation.now,
            expires_at=situation.now + lifetime,
        )
    )


def _remember(home: Home, requests: Sequence[Statement[Asking]]) -> None:
    with home.lock():
        memory = home.memory()
        for request in requests:
            by_tpm = of_kind(Request, request)
            if by_tpm is not None:
                memory = remember_request(memory, by_tpm)
        home.save_memory(memory)
