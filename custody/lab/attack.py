"""Attacks that the lab makes on itself, each with every check of ours left out.

Whoever has root on a host, or is an officer who lies, does not run our rules.  These functions are
what he would write: they show that the TPM and the commitments stop him, not an ``if``.

Run as a process of the actor who attacks: ``python -m custody.lab.attack force|corrupt …``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import MLKEM_SEED_BYTES, approval_info
from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import seal as seal_slot
from custody.crypto.quorum import Node, Person, Threshold, satisfied
from custody.crypto.signature import sign
from custody.encoding import utc_now
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.approval import Approval
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.keys.api import Pkcs11Uri, TpmUri, parse_key_uri
from custody.keys.hostapi import HostPolicyPlan, HostTpm, SealedSeed
from custody.keys.pkcs11 import open_token
from custody.keys.tpm import open_host
from custody.ops.actor import signer_of
from custody.ops.folders import read_folder, read_statement_file
from custody.ops.home import Home
from custody.ops.landing import write_new_file
from custody.ops.outstanding import Ledger
from custody.ops.trust import current
from custody.rules.attestation import conditions_of
from custody.rules.quorum import leaf_of, policy_signed_bytes, signing_path, signing_tree
from custody.rules.request import golden_of
from custody.rules.situation import Situation

_LIE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to make a TPM open one share.  ``refusal`` is the TPM's own word, if it did not."""

    request: str
    share_of: str
    opened: bool
    refusal: str


def force(
    requests: Sequence[Statement[Request]],
    approvals: Sequence[Statement[Approval]],
    *,
    situation: Situation,
    tpm: HostTpm,
    ledger: Ledger,
) -> tuple[Attempt, ...]:
    """Try to open every share of several requests with everything that any of them collected.

    For each request the TPM is shown the signatures of all officers who approved any of them.  If
    they do not satisfy the tree, it is shown a smaller tree that they do satisfy.
    """
    attempts = []
    for request in requests:
        entry = ledger.find(request.digest)
        plan = _plan(request, approvals, entry.counter_index, situation)
        key = tpm.open_host_key(entry.host_key, plan)
        seed = _seed(tpm, entry.seed, plan)
        attempts += [_try(request, approval, key, seed, situation) for approval in approvals]
    return tuple(attempts)


def _seed(tpm: HostTpm, sealed: SealedSeed | None, plan: HostPolicyPlan) -> bytes | None:
    """Return the ML-KEM half of a hybrid key, or one made up where the TPM keeps it.

    So that its other half is tried all the same: that the TPM does not use it is for it to say.
    """
    if sealed is None:
        return None
    try:
        return bytes(tpm.unseal_seed(sealed, plan))
    except Refused as error:
        if not error.check.startswith("tpm."):
            raise
        return bytes(MLKEM_SEED_BYTES)


def _plan(
    request: Statement[Request],
    approvals: Sequence[Statement[Approval]],
    counter_index: int,
    situation: Situation,
) -> HostPolicyPlan:
    policy, terms = situation.trusted.policy, request.predicate.terms
    tree, officers = signing_tree(policy)
    # Approvals of this very request last, so that of two by one officer the right one is shown.
    ordered = sorted(approvals, key=lambda a: a.predicate.request == request.digest)
    by_path = {signing_path(policy, _author(a)): a for a in ordered}
    signatures = {
        path: a.predicate.terms_signature for path, a in by_path.items() if path is not None
    }
    return HostPolicyPlan(
        tree=tree if satisfied(tree, signatures) else _smaller(tree, "", signatures) or tree,
        officers=officers,
        signatures=signatures,
        terms=terms.digest(),
        conditions=conditions_of(terms, golden_of(request, situation).predicate),
        counter_index=counter_index,
    )


def _try(
    request: Statement[Request],
    approval: Statement[Approval],
    key: ec.EllipticCurvePrivateKey,
    seed: bytes | None,
    situation: Situation,
) -> Attempt:
    said, author = approval.predicate, _author(approval)
    holder = situation.trusted.policy.holder(author)
    info = approval_info(said.request, said.leaf, author)
    opened, refusal = True, ""
    try:
        open_slot(request.predicate.suite, key, seed, said.sealed_share, info=info)
    except Refused as error:
        # "slot.open" is ours, after the TPM has used the key: then it was not the TPM that
        # stopped us.
        if error.check.startswith("tpm."):
            opened, refusal = False, error.reason
        elif error.check != "slot.open":
            raise
    return Attempt(
        request=request.digest,
        share_of=holder.id if holder else "nobody known",
        opened=opened,
        refusal=refusal,
    )


def _author(approval: Statement[Approval]) -> str:
    return approval.envelope.signatures[0].keyid


def _smaller(node: Node, path: str, have: dict[str, bytes]) -> Node | None:
    """Return the tree with every branch that did not sign turned into one that is not asked.

    Paths must stay, so a k-of-n asks for fewer and keeps its children.
    """
    if isinstance(node, Person):
        return node if path in have else None
    below = [f"{path}/{index}" if path else str(index) for index in range(len(node.of))]
    pairs = zip(node.of, below, strict=True)
    children = [_smaller(child, where, have) for child, where in pairs]
    willing = sum(child is not None for child in children)
    if not willing:
        return None
    of = tuple(new or old for new, old in zip(children, node.of, strict=True))
    return Threshold(k=min(node.k, willing), of=of)


def corrupt(
    request: Statement[Request], *, situation: Situation, home: Home, token: Pkcs11Uri
) -> bytes:
    """Approve ``request`` in every form, but with a share that is made up.

    Signature, leaf and seal are right, so only the commitment can tell.
    """
    policy, terms = situation.trusted.policy, request.predicate.terms
    with open_token(token) as opened, opened.session():
        signer = signer_of(home.identity(), opened)
        holder = policy.holder(signer.key_id)
        leaf = leaf_of(policy.quorum, holder.id) if holder else None
        if leaf is None:
            raise Refused("this key is no officer's", check="approve.officer")
        return signer.statement(
            Approval(
                request=request.digest,
                manifest=terms.manifest,
                policy=situation.trusted.digest,
                terms=terms.digest().hex(),
                leaf=leaf.path,
                sealed_share=seal_slot(
                    request.predicate.suite,
                    request.predicate.recipient,
                    request.predicate.mlkem,
                    os.urandom(_LIE_BYTES),
                    info=approval_info(request.digest, leaf.path, signer.key_id),
                ),
                terms_signature=sign(signer.key, policy_signed_bytes(terms.digest())),
                approved_at=situation.now,
                expires_at=situation.now + timedelta(seconds=policy.limits.approval_seconds),
            )
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack as the actor whose environment this is; 0 means that the attack was made.

    ``force`` answers 1 when nothing opened, as it must.
    """
    parser = argparse.ArgumentParser(prog="python -m custody.lab.attack")
    verbs = parser.add_subparsers(dest="verb", required=True)
    forcing = verbs.add_parser("force", help="show a TPM approvals of several requests at once")
    forcing.add_argument("requests", nargs="+", type=Path)
    forcing.add_argument("--answers", type=Path, required=True)
    corrupting = verbs.add_parser("corrupt", help="approve with a share that is made up")
    corrupting.add_argument("request", type=Path)
    corrupting.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        return _force(given) if given.verb == "force" else _corrupt(given)
    except CustodyError as error:
        sys.stderr.write(f"custody: error: {error}\n")
        return 3


def _force(given: argparse.Namespace) -> int:
    home, uri = _home(), parse_key_uri(os.environ["CUSTODY_TPM"])
    if not isinstance(uri, TpmUri):
        raise Malformed("not a tpm: URI", where=str(uri))
    situation = _situation(home, given.answers)
    wanted = [read_statement_file(Request, path) for path in given.requests]
    digests = {request.digest for request in wanted}
    attempts = force(
        wanted,
        [a for a in situation.documents.approvals if a.predicate.request in digests],
        situation=situation,
        tpm=open_host(uri),
        ledger=Ledger(home.folder("requests")),
    )
    shares: dict[tuple[str, str], list[str]] = {}
    for attempt in attempts:
        words = f"refused by the TPM: {attempt.refusal}" if attempt.refusal else "OPENED"
        shares.setdefault((attempt.request[:8], words), []).append(attempt.share_of)
    for (request, words), names in shares.items():
        sys.stdout.write(f"request {request}, shares of {', '.join(names)}: {words}\n")
    return 0 if any(attempt.opened for attempt in attempts) else 1


def _corrupt(given: argparse.Namespace) -> int:
    home = _home()
    request = read_statement_file(Request, given.request)
    uri = parse_key_uri(home.identity().token)
    if not isinstance(uri, Pkcs11Uri):
        raise Malformed("not a pkcs11: URI", where=str(uri))
    made = corrupt(request, situation=_situation(home), home=home, token=uri)
    write_new_file(given.out, made)
    sys.stdout.write(f"{given.out}\n")
    return 0


def _home() -> Home:
    return Home(Path(os.environ["CUSTODY_HOME"]))


def _situation(home: Home, *more: Path) -> Situation:
    # What the policy says is needed to build the attack; nothing is judged by it here.
    documents = read_folder(Path(os.environ["CUSTODY_ENV"]), *more)
    return current(home, documents=documents, now=utc_now())


if __name__ == "__main__":
    sys.exit(main())
