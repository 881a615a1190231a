"""Golden sets: measured on a machine that is known to be right, vouched for by enrollers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

from custody.crypto.signature import sign, verify
from custody.encoding import encode
from custody.errors import Refused
from custody.formats.authorisation import Authorisation
from custody.formats.envelope import Statement, encode_statement
from custody.formats.eventlog import parse_event_log
from custody.formats.goldenset import LAST_LOGGED_PCR, GoldenSet, PcrEvents, PcrValue
from custody.formats.measurement import Measurement
from custody.ops.cosign import check_begun
from custody.ops.keys import Signer
from custody.ops.wellformed import well_formed
from custody.rules.authorisation import state_message
from custody.rules.authorisers import authorisers
from custody.rules.eventlog import check_event_log, replay
from custody.rules.request import oldest_epoch
from custody.rules.situation import Situation
from custody.rules.trust import count_signers, require_signatory
from custody.rules.verdicts import require


class Registers(Protocol):
    """As much of a `HostTpm` as a measurement uses."""

    def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        """See `HostTpm`."""
        ...


def measure(
    tpm: Registers, *, pcrs: Sequence[int], now: datetime, event_log: bytes = b""
) -> Measurement:
    """Read registers of a machine's SHA-256 bank, to be shown with the log of its boot."""
    wanted = tuple(sorted(set(pcrs)))
    values = tpm.pcr_values(wanted)
    return Measurement(
        kind="custody/measurement/v1",
        bank="sha256",
        pcrs=tuple(
            PcrValue(pcr=pcr, value=value.hex()) for pcr, value in zip(wanted, values, strict=True)
        ),
        measured_at=now,
        event_log=event_log,
    )


def approve_state(
    measurement: Measurement,
    *,
    signer: Signer,
    situation: Situation,
    name: str,
    notes: str,
    epoch: int,
    oldest: int | None = None,
    onto: Statement[GoldenSet] | None = None,
) -> bytes:
    """Vouch for a boot state; returns the golden set (``.dsse``).

    The measurement must cover every register the policy asks for; others are left out.  Where it
    brings an event log, that must explain them all, and the set names their components.  Sets of
    this name with an epoch below ``oldest`` are good no longer; None means all before this one.
    ``onto`` is what other enrollers have signed, which must say the same but for its time.
    """
    policy = situation.trusted.policy
    require_signatory(policy, signer.key_id, role="enroller", check="golden.signer")
    values = {value.pcr: value for value in measurement.pcrs}
    absent = [pcr for pcr in policy.host.pcrs if pcr not in values]
    if absent:
        raise Refused(
            f"the policy also asks for PCR {', '.join(map(str, absent))}",
            check="golden.pcrs",
            hint="custody host measure reads what the policy asks for",
        )
    derived = well_formed(
        GoldenSet(
            environment=situation.trusted.genesis,
            name=name,
            notes=notes,
            epoch=epoch,
            oldest=epoch if oldest is None else oldest,
            bank=measurement.bank,
            pcrs=tuple(values[pcr] for pcr in policy.host.pcrs),
            issued_at=situation.now,
        )
    )
    if measurement.event_log:
        derived = well_formed(_by_components(derived, measurement.event_log))
    if onto is None:
        return signer.statement(derived)
    _check_onto(onto, derived, signer, situation)
    # The first signer's time stands: all sign the same bytes.
    same = onto.predicate
    return encode_statement(same, [*onto.envelope.signatures, signer.signature(same)])


def authorise_state(golden: Statement[GoldenSet], *, signer: Signer, situation: Situation) -> bytes:
    """Let keys that hosts keep open in a boot state; returns the authorisation (``.dsse``).

    Only of a golden set that this enroller has signed himself, so that nobody authorises what he
    did not measure; and that its threshold has signed, because shares of a key that one enroller
    let out in one state and another in another add up.  TPMs check P-256 signatures only.
    """
    policy, said = situation.trusted.policy, golden.predicate
    if not any(signer.spki in each.keys for each in authorisers(policy)):
        raise Refused(
            "the signing key is no enroller's in this policy, or not on P-256",
            check="authorisation.signer",
        )
    if not _signed_by(golden, signer):
        raise Refused(
            "you have not signed this golden set",
            check="authorisation.golden",
            hint="measure such a machine, and sign first: custody enroller golden --onto",
        )
    needed = policy.thresholds.golden
    if count_signers(golden.envelope, policy, role="enroller", needed=needed).missing:
        raise Refused(
            f"fewer than {needed} enrollers have signed this golden set",
            check="golden.threshold",
            hint="when the others have: custody enroller authorise",
        )
    if said.environment != situation.trusted.genesis or said.selection() != policy.host.pcrs:
        raise Refused(
            "it is of another environment, or over other registers than the policy's",
            check="authorisation.golden",
        )
    if said.epoch < oldest_epoch(said.name, situation):
        raise Refused(f"epoch {said.epoch} of {said.name} was replaced", check="golden.epoch")
    return signer.statement(
        Authorisation(
            environment=said.environment,
            golden=golden.digest,
            state_signature=sign(signer.key, state_message(said)),
            authorised_at=situation.now,
        )
    )


def _signed_by(golden: Statement[GoldenSet], signer: Signer) -> bool:
    """Whether that signature is there and good: a name on a statement is anybody's to write."""
    for signature in golden.envelope.signatures:
        if signature.keyid == signer.key_id:
            try:
                verify(signer.spki, golden.envelope.signed_bytes(), signature.sig)
            except Refused:
                return False
            return True
    return False


def _by_components(exact: GoldenSet, event_log: bytes) -> GoldenSet:
    """Say by components what ``exact`` says by values."""
    require(
        check_event_log(
            event_log,
            demand="required",
            quoted=bytes.fromhex(exact.pcr_digest()),
            golden=exact,
            subject="measurement",
        )
    )
    replayed = replay(parse_event_log(event_log))
    return replace(
        exact,
        pcrs=tuple(
            PcrEvents(
                pcr=register.pcr,
                locality=replayed.locality if register.pcr == 0 else 0,
                components=replayed.components(register.pcr),
            )
            # What a log says of a dynamic root of trust, or of none, is its value.
            if register.pcr <= LAST_LOGGED_PCR
            else register
            for register in exact.pcrs
        ),
    )


def _check_onto(
    onto: Statement[GoldenSet], derived: GoldenSet, signer: Signer, situation: Situation
) -> None:
    there = onto.predicate
    if encode(replace(derived, issued_at=there.issued_at)) != encode(there):
        differing = [
            field
            for field in GoldenSet.__struct_fields__
            if field != "issued_at" and getattr(there, field) != getattr(derived, field)
        ]
        raise Refused(
            f"the golden set differs from what you measured: {', '.join(differing)}",
            check="golden.record",
        )
    check_begun(
        onto.envelope,
        dated=there.issued_at,
        key=signer.key_id,
        threshold=situation.trusted.policy.thresholds.golden,
        situation=situation,
        check="golden.record",
    )
