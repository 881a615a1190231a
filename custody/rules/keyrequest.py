"""Is this request one of a host that the policy knows by keys in an HSM?  Format: keyrequest.md.

What a TPM would show (boot state, one boot, a key that dies) nobody can judge here, and the
verdicts say so.  In its place stand two rounds: `rules.consents`.
"""

from __future__ import annotations

from datetime import timedelta

from custody.crypto.signature import verify
from custody.encoding import format_time, key_id
from custody.formats.envelope import Statement
from custody.formats.keyrequest import KeyReceipt, KeyRequest
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy, Principal, ShareKey
from custody.rules.asked import check_asked_for
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict

#: What officers, auditors and reports are told of such a host, in these words.
WARNING = "host key in an HSM; boot state unknown; burn not provable"


def check_key_request(
    statement: Statement[KeyRequest], manifest: Statement[Manifest], situation: Situation
) -> tuple[Verdict, ...]:
    """Judge one key request for ``manifest``: whether such hosts are taken, and whose keys it has.

    That officers consented is judged with their approvals.
    """
    request, policy = statement.predicate, situation.trusted.policy
    ledger = Ledger(subject=f"request of {request.host}")
    check_asked_for(ledger, statement, manifest, situation)
    ledger.add(
        "keyrequest.class",
        "hsm-key" in policy.host.trust_classes,
        f"the policy takes hosts without a TPM: {WARNING}",
        otherwise="the policy takes no hosts without a TPM",
    )
    keyid, name, verdicts = check_author(
        statement, policy, role="host", check="keyrequest", subject=ledger.subject
    )
    ledger.extend(verdicts)
    host = policy.principal(name)
    ledger.add(
        "keyrequest.host",
        host is not None and name == request.host,
        f"the host is {request.host}",
        otherwise=f"signed by {name or 'nobody known'}, for {request.host}",
    )
    key = policy.signing_key(keyid)
    if host is not None and key is not None:
        ledger.extend(check_key(host, key, situation))
    _check_recipient(ledger, request, host, situation)
    _check_deadline(ledger, request, policy, situation)
    ledger.add(
        "keyrequest.further",
        not policy.host.further,
        "no evidence besides is demanded",
        otherwise="the policy demands evidence that a key in an HSM cannot show",
    )
    ledger.skip("keyrequest.boot", "boot state unknown: no TPM shows it")
    ledger.skip("keyrequest.burn", "burn not provable: the key stays what it is")
    return ledger.done()


def _check_recipient(
    ledger: Ledger, request: KeyRequest, host: Principal | None, situation: Situation
) -> None:
    keys = host.keys if host is not None else ()
    listed = next(
        (
            key
            for key in keys
            if isinstance(key, ShareKey) and key.key_id == request.terms.recipient
        ),
        None,
    )
    ledger.add(
        "keyrequest.recipient",
        listed is not None
        and (listed.spki, listed.mlkem, listed.suite)
        == (request.recipient, request.mlkem, request.suite),
        f"shares go to {request.host}'s listed key, by its suite",
        otherwise=f"asks for shares for a key that is not listed as {request.host}'s",
    )
    if host is not None and listed is not None:
        ledger.extend(check_key(host, listed, situation))


def _check_deadline(
    ledger: Ledger, request: KeyRequest, policy: Policy, situation: Situation
) -> None:
    window = timedelta(seconds=policy.limits.request_window_seconds)
    asked, deadline = request.requested_at, request.terms.deadline
    allowed, until = asked < deadline <= asked + window, format_time(deadline)
    # No TPM stops at it.  An old request that is shown again would otherwise be a new one.
    ledger.add(
        "keyrequest.deadline",
        allowed and situation.now < deadline,
        f"good until {until}",
        otherwise=f"its deadline is past: {until}"
        if allowed
        else f"its deadline is earlier than it, or later than the policy allows: {until}",
    )


def is_signed(statement: Statement[KeyRequest]) -> bool:
    """Tell whether a key request is signed by the key in it, which anybody can make."""
    ledger, said = Ledger(), statement.predicate
    with ledger.failing("keyrequest.signature"):
        verify(said.signer, statement.envelope.signed_bytes(), statement.envelope.signatures[0].sig)
        ledger.add("keyrequest.signature", True, "signed by the key in it")
    return statement.envelope.signatures[0].keyid == said.author and not ledger.failed


def check_key_receipt(
    statement: Statement[KeyReceipt], request: Statement[KeyRequest]
) -> tuple[Verdict, ...]:
    """Judge a receipt against the key request it ends, by bytes alone.

    Whose the request's key is, is for `check_key_request`; whether an opening came in time, and
    what counts of a receipt that is not good, for `rules.endings`.
    """
    asked, receipt = request.predicate, statement.predicate
    ledger = Ledger(subject=f"receipt of {asked.host}")
    ledger.add(
        "receipt.request",
        receipt.request == request.digest
        and receipt.manifest == asked.terms.manifest
        and receipt.terms == asked.terms.digest().hex(),
        "is about this request",
        otherwise="is about another request, manifest or terms",
    )
    by = statement.envelope.signatures[0].keyid
    ledger.add(
        "receipt.author",
        by == receipt.author == asked.author == key_id(asked.signer),
        "by the key that asked",
        otherwise="by another key than the one that asked",
    )
    _check_signature(ledger, statement, asked)
    return ledger.done()


def is_by_asker(statement: Statement[KeyReceipt], request: Statement[KeyRequest]) -> bool:
    """Tell whether the key that asked signed a receipt, of whatever it says that it is."""
    asked, ledger = request.predicate, Ledger()
    _check_signature(ledger, statement, asked)
    named = statement.envelope.signatures[0].keyid
    return named == key_id(asked.signer) and not ledger.failed


def _check_signature(ledger: Ledger, statement: Statement[KeyReceipt], asked: KeyRequest) -> None:
    with ledger.failing("receipt.signature"):
        signature = statement.envelope.signatures[0].sig
        verify(asked.signer, statement.envelope.signed_bytes(), signature)
        ledger.add("receipt.signature", True, f"signed by {asked.host}'s key, and by no TPM")
