"""Whether an admission's keys are its sender's.  Who the sender is, a person has to say."""

from __future__ import annotations

from collections import Counter

from custody.crypto.certificates import CertificateRequest, read_csr
from custody.crypto.keyslots import check_recipient, is_oaep
from custody.crypto.possession import check_possession
from custody.crypto.signature import verify
from custody.encoding import key_id
from custody.errors import Malformed, Refused
from custody.formats.admission import Admission, InvitationKeys
from custody.formats.envelope import Statement
from custody.formats.policy import ATTESTED
from custody.formats.possession import KeptChallenge
from custody.rules.verdicts import Ledger, Verdict

#: The check of keys that only decrypt: they prove nothing in an admission, but by a second round.
CHALLENGE = "admission.challenge"


def check_admission(
    statement: Statement[Admission],
    *,
    keys: InvitationKeys,
    challenged: KeptChallenge | None = None,
) -> tuple[Verdict, ...]:
    """Judge an admission against the invitation it answers.

    A pass means: one sender holds the signing key and the EC half of every share key, and offers
    them under this name.  It does not mean that the name is his.  ``challenged`` is what was sealed
    to its keys that only decrypt, with the answer; without it they are vouched for, which fails.
    """
    admission = statement.predicate
    ledger = Ledger(subject=f"admission of {admission.principal}")
    ledger.add(
        "admission.invitation",
        admission.invitation == keys.invitation.digest(),
        "answers this invitation",
        otherwise="answers another invitation",
    )
    request: CertificateRequest | None
    try:
        request = read_csr(admission.csr)
    except (Malformed, Refused) as error:
        request = None
        ledger.add("admission.csr", False, error.reason)
    if request is None:
        ledger.skip("admission.signature", "there is no signing key")
    else:
        ledger.add(
            "admission.csr",
            request.name == admission.principal,
            "the signing key asks for this name",
            otherwise="the signing key asks for another name",
        )
        _check_signature(statement, request, ledger)
    # A claim of the sender's program is worth what the sender is; that a vendor attests a key is
    # for certificates to show (`rules.vendor`).
    ledger.add(
        "admission.token",
        admission.token_class != ATTESTED,
        f"keys in a token of class {admission.token_class}, by the sender's word",
        otherwise="claims what a vendor's certificates have to show",
    )
    _check_keys(admission, request, ledger)
    _check_shares(admission, keys, ledger)
    _check_challenge(statement, challenged, ledger)
    return ledger.done()


def _check_signature(
    statement: Statement[Admission], request: CertificateRequest, ledger: Ledger
) -> None:
    # The request alone can be lifted out of another admission and put beside a stranger's share
    # key, which would then be sealed the victim's shares.  This signature ties them together.
    signature = statement.envelope.signatures[0]
    with ledger.failing("admission.signature"):
        if signature.keyid != key_id(request.spki):
            raise Malformed("not signed by the key it offers")
        verify(request.spki, statement.envelope.signed_bytes(), signature.sig)
        ledger.add("admission.signature", True, "signed by the key it offers")


def _check_keys(admission: Admission, request: CertificateRequest | None, ledger: Ledger) -> None:
    with ledger.failing("admission.keys"):
        for share in admission.shares:
            check_recipient(share.suite, share.spki, share.mlkem)
        spkis = [share.spki for share in admission.shares]
        if request is not None:
            spkis.append(request.spki)
        ledger.add(
            "admission.keys",
            max(Counter(spkis).values(), default=0) <= 1,
            "every key fits its suite and has one use",
            otherwise="a key is offered twice",
        )


def _check_shares(admission: Admission, keys: InvitationKeys, ledger: Ledger) -> None:
    if all(share.proof is None for share in admission.shares):
        ledger.skip("admission.possession", "no share key is offered that agrees")
    for number, share in enumerate(admission.shares):
        if share.proof is None or is_oaep(share.suite):
            continue
        with ledger.failing("admission.possession"):
            check_possession(
                bytes.fromhex(share.proof),
                spki=share.spki,
                invitation_key=keys.private_key(share.suite),
                statement=admission.statement_of(share),
            )
            ledger.add("admission.possession", True, f"the sender holds share key {number}")


def _check_challenge(
    statement: Statement[Admission], challenged: KeptChallenge | None, ledger: Ledger
) -> None:
    claims = [share for share in statement.predicate.shares if is_oaep(share.suite)]
    if not claims:
        ledger.skip(CHALLENGE, "no share key is offered that only decrypts")
        return
    with ledger.failing(CHALLENGE):
        if challenged is None or challenged.answer is None:
            raise Refused("vouched for by the signing key, not proven", check=CHALLENGE)
        asked = challenged.challenge
        if asked.admission != statement.digest or {slot.recipient for slot in asked.slots} != {
            key_id(share.spki) for share in claims
        }:
            raise Refused("another admission was challenged", check=CHALLENGE)
        challenged.check(challenged.answer)
        ledger.add(CHALLENGE, True, "the sender opened what was sealed to his RSA share keys")
