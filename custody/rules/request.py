"""Is this request one an officer may answer, by policy, enrolment, boot state and evidence?"""

from __future__ import annotations

from custody.crypto.certificates import spki_of
from custody.encoding import key_id
from custody.errors import Refused
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import Manifest
from custody.formats.request import Request
from custody.rules.asked import check_asked_for
from custody.rules.attestation import check_evidence
from custody.rules.enrolment import check_in_force
from custody.rules.further import check_further
from custody.rules.memory import oldest_epochs
from custody.rules.situation import Situation
from custody.rules.trust import check_threshold
from custody.rules.verdicts import Ledger, Verdict


def enrolment_of(statement: Statement[Request], situation: Situation) -> Statement[EnrolmentRecord]:
    """Return the enrolment record a request names."""
    found = situation.documents.enrolment(statement.predicate.enrolment)
    if found is None:
        raise Refused(
            "the enrolment record it names is not here",
            check="request.enrolment",
            where=f"request of {statement.predicate.host}",
        )
    return found


def golden_of(statement: Statement[Request], situation: Situation) -> Statement[GoldenSet]:
    """Return the golden set a request names."""
    found = situation.documents.golden(statement.predicate.golden)
    if found is None:
        raise Refused(
            "the golden set it names is not here",
            check="request.golden",
            where=f"request of {statement.predicate.host}",
        )
    return found


def endorsement_key(record: EnrolmentRecord) -> bytes:
    """Return the EK (DER SPKI) that an enrolment record is about, from the certificate in it."""
    spki = spki_of(record.ek_certificate)
    if key_id(spki) != record.ek_spki:
        raise Refused("the record's EK is not its certificate's", check="attestation.V14")
    return spki


def check_request(
    statement: Statement[Request], manifest: Statement[Manifest], situation: Situation
) -> tuple[Verdict, ...]:
    """Judge one request for ``manifest``: what it names, who vouches for the host, its evidence."""
    request = statement.predicate
    policy = situation.trusted.policy
    ledger = Ledger(subject=f"request of {request.host}")
    check_asked_for(ledger, statement, manifest, situation)
    with ledger.failing("request.vouched"):
        enrolment, golden = enrolment_of(statement, situation), golden_of(statement, situation)
        ledger.extend(check_vouchers(enrolment, golden, request.host, situation))
        ledger.extend(
            check_evidence(
                statement,
                enrolment=enrolment.predicate,
                golden=golden.predicate,
                policy=policy,
                remembered=situation.memory.host(request.terms.ek_spki),
            )
        )
    ledger.extend(
        check_further(
            statement,
            demanded=policy.host.further,
            verifiers=situation.verifiers,
            now=situation.now,
        )
    )
    return ledger.done()


def check_enrolment(
    enrolment: Statement[EnrolmentRecord], host: str, situation: Situation
) -> tuple[Verdict, ...]:
    """Judge who signed an enrolment record, for which host and environment."""
    policy = situation.trusted.policy
    ledger = Ledger(subject=f"enrolment of {enrolment.predicate.host}")
    ledger.add(
        "enrolment.environment",
        enrolment.predicate.environment == situation.trusted.genesis,
        "the enrolment record is of this environment",
        otherwise="the enrolment record is of another environment",
    )
    ledger.add(
        "enrolment.host",
        enrolment.predicate.host == host,
        f"the host is {host}",
        otherwise=f"the enrolment record is of {enrolment.predicate.host}, not {host}",
    )
    ledger.extend(
        [
            check_threshold(
                enrolment,
                policy,
                role="enroller",
                needed=policy.thresholds.enrolment,
                check="enrolment.threshold",
                subject=ledger.subject,
            ),
            *check_in_force(enrolment, situation),
        ]
    )
    return ledger.done()


def check_vouchers(
    enrolment: Statement[EnrolmentRecord],
    golden: Statement[GoldenSet],
    host: str,
    situation: Situation,
) -> tuple[Verdict, ...]:
    """Judge who signed the enrolment record and the golden set, and for which environment."""
    policy = situation.trusted.policy
    ledger = Ledger(subject=f"enrolment of {enrolment.predicate.host}")
    ledger.extend(check_enrolment(enrolment, host, situation))
    ledger.add(
        "enrolment.environment",
        golden.predicate.environment == situation.trusted.genesis,
        "the golden set is of this environment",
        otherwise="the golden set is of another environment",
    )
    ledger.extend(
        [
            check_threshold(
                golden,
                policy,
                role="enroller",
                needed=policy.thresholds.golden,
                check="golden.threshold",
                subject=f"golden set {golden.predicate.name}",
            ),
        ]
    )
    oldest = oldest_epoch(golden.predicate.name, situation)
    ledger.add(
        "golden.epoch",
        golden.predicate.epoch >= oldest,
        f"epoch {golden.predicate.epoch} of {golden.predicate.name} is in use",
        otherwise=f"epoch {golden.predicate.epoch} of {golden.predicate.name} was replaced; "
        f"the oldest in use is {oldest}",
    )
    return ledger.done()


def oldest_epoch(name: str, situation: Situation) -> int:
    """Return the oldest epoch of a golden set that is still good, by all that is here or known.

    Whoever carries the files could otherwise leave out the newer set, and have a boot state
    approved that its judge has seen retired.
    """
    here = oldest_epochs(
        situation.documents.golden_sets, trusted=situation.trusted, now=situation.now
    )
    return max(here.get(name, 1), situation.memory.oldest_epoch(name))
