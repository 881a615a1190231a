"""Retire a host: its enrolment record ends, for good.  Format: retirement.md."""

from __future__ import annotations

from msgspec.structs import replace

from custody.encoding import encode
from custody.errors import Refused
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement, encode_statement
from custody.formats.retirement import Retirement
from custody.ops.cosign import check_begun
from custody.ops.keys import Signer
from custody.ops.wellformed import well_formed
from custody.rules.enrolment import is_vouched
from custody.rules.situation import Situation
from custody.rules.trust import require_signatory


def retire(
    record: Statement[EnrolmentRecord],
    *,
    reason: str,
    signer: Signer,
    situation: Situation,
    onto: Statement[Retirement] | None = None,
) -> bytes:
    """End ``record`` and every earlier one of its EK; returns the retirement (``.dsse``).

    It counts when as many enrollers have signed it as a record needs.  ``onto`` is what others have
    signed: what this enroller derives from ``record`` himself, but for the reason and the time.
    """
    policy = situation.trusted.policy
    require_signatory(policy, signer.key_id, role="enroller", check="retirement.signer")
    if not is_vouched(record, situation.trusted):
        raise Refused(
            "no threshold of this environment has signed that record: it counts for nothing",
            check="enrolment.threshold",
        )
    said = record.predicate
    derived = well_formed(
        Retirement(
            environment=situation.trusted.genesis,
            host=said.host,
            ek_spki=said.ek_spki,
            record=record.digest,
            epoch=said.epoch,
            reason=reason if onto is None else onto.predicate.reason,
            retired_at=situation.now if onto is None else onto.predicate.retired_at,
        )
    )
    if onto is None:
        return signer.statement(derived)
    _check_onto(onto, derived, signer, situation)
    return encode_statement(derived, [*onto.envelope.signatures, signer.signature(derived)])


def _check_onto(
    onto: Statement[Retirement], derived: Retirement, signer: Signer, situation: Situation
) -> None:
    if encode(onto.predicate) != encode(derived):
        said = onto.predicate
        same = replace(said, record=derived.record, epoch=derived.epoch) == derived
        raise Refused(
            "it retires another record" if same else "it differs from what the record says",
            check="retirement.record",
        )
    check_begun(
        onto.envelope,
        dated=derived.retired_at,
        key=signer.key_id,
        threshold=situation.trusted.policy.thresholds.enrolment,
        situation=situation,
        check="retirement.record",
    )
