"""Who lets kept keys open in a boot state, and whose word on it counts.

A golden set says that a state is right.  For a TPM to take it from there, enough enrollers must
also have signed it in the TPM's own form: authorisation.md, "Verifying".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from custody.crypto.signature import verify
from custody.crypto.tpmretained import authorised_message
from custody.encoding import Digest
from custody.errors import Malformed
from custody.formats.authorisation import Authorisation
from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import Policy
from custody.rules.authorisers import is_p256
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAuthorisation:
    """An authorisation, who signed it by which key (DER SPKI), and why it counts or not."""

    statement: Statement[Authorisation]
    enroller: str
    spki: bytes
    verdicts: tuple[Verdict, ...]


def state_message(golden: GoldenSet) -> bytes:
    """Return the 64 bytes by which an enroller authorises a golden set to TPMs."""
    return authorised_message(
        golden.selection(),
        bytes.fromhex(golden.pcr_digest()),
        environment=bytes.fromhex(golden.environment),
        name=golden.name,
        epoch=golden.epoch,
    )


def judge_authorisations(
    golden: Statement[GoldenSet], authorisations: Iterable[Statement[Authorisation]], policy: Policy
) -> tuple[JudgedAuthorisation, ...]:
    """Judge the authorisations of one golden set; those of others are not looked at.

    One that fails is passed over, never refused: whoever can add a file could otherwise keep a host
    from starting.
    """
    return tuple(
        _judge(statement, golden, policy)
        for statement in authorisations
        if statement.predicate.golden == golden.digest
    )


def authorised_by(
    golden: Statement[GoldenSet], situation: Situation
) -> tuple[JudgedAuthorisation, ...]:
    """Return the good authorisations of a golden set among the files here."""
    judged = judge_authorisations(
        golden, situation.documents.authorisations, situation.trusted.policy
    )
    return tuple(each for each in judged if passed(each.verdicts))


def _judge(
    statement: Statement[Authorisation], golden: Statement[GoldenSet], policy: Policy
) -> JudgedAuthorisation:
    ledger = Ledger(subject=f"authorisation of {golden.predicate.name}")
    keyid, enroller, verdicts = check_author(
        statement, policy, role="enroller", check="authorisation", subject=ledger.subject
    )
    ledger.extend(verdicts)
    ledger.add(
        "authorisation.environment",
        statement.predicate.environment == golden.predicate.environment,
        "of the golden set's environment",
        otherwise="of another environment than the golden set",
    )
    spki = _spki(policy, keyid)
    with ledger.failing("authorisation.state"):
        if spki is None:
            raise Malformed("the key is none that a TPM could check")
        verify(spki, state_message(golden.predicate), statement.predicate.state_signature)
        ledger.add("authorisation.state", True, "signed in the form a TPM checks")
    return JudgedAuthorisation(
        statement=statement, enroller=enroller, spki=spki or b"", verdicts=ledger.done()
    )


def _spki(policy: Policy, keyid: Digest) -> bytes | None:
    key = policy.signing_key(keyid)
    return key.spki if key is not None and is_p256(key) else None
