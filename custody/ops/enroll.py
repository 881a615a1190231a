"""Hosts: what a machine shows, and how each enroller makes sure of it.  enrolment.md.

One enroller convinces nobody.  Each runs his own credential challenge, and signs a record only if
its bytes are those he would have written himself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from msgspec.structs import replace

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, encode, key_id
from custody.errors import Refused
from custody.formats.enrolment import (
    Answer,
    Challenge,
    EnrolmentRecord,
    EnrolmentRequest,
    activation_proof,
)
from custody.formats.envelope import Statement, encode_statement
from custody.formats.evidence import name, pack_quote
from custody.formats.policy import TpmClass
from custody.keys.hostapi import UNJUDGED_PCRS, Attested
from custody.ops.challenges import CredentialMaker, pose, use_up
from custody.ops.cosign import check_begun
from custody.ops.home import Home
from custody.ops.inventory import Inventory
from custody.ops.keys import Signer, TokenRandom
from custody.ops.trust import remember_vendor_lists
from custody.ops.wellformed import check_name, well_formed
from custody.rules.endorsement import (
    VendorLists,
    check_attestation_key,
    check_endorsement,
    check_listed_name,
    firmware_of,
    vendor_chain,
)
from custody.rules.enrolment import check_in_force, enrolment_seen, is_vouched
from custody.rules.situation import Situation
from custody.rules.trust import require_signatory
from custody.rules.verdicts import Verdict, passed, require


class EnrollingTpm(Protocol):
    """As much of a `HostTpm` as enrolment uses."""

    def ek_certificate(self) -> bytes:
        """See `HostTpm`."""
        ...

    def ek_intermediates(self) -> tuple[bytes, ...]:
        """See `HostTpm`."""
        ...

    def ak_public(self) -> bytes:
        """See `HostTpm`."""
        ...

    def quote(self, qualifying: bytes, pcrs: tuple[int, ...]) -> Attested:
        """See `HostTpm`."""
        ...

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """See `HostTpm`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenged:
    """A challenge, and every check that was made before it."""

    challenge: Challenge
    verdicts: tuple[Verdict, ...]


# ── the host ─────────────────────────────────────────────────────────────────────────────────────


def ask(tpm: EnrollingTpm, *, host: str, intermediates: Sequence[bytes] = ()) -> EnrolmentRequest:
    """Show a machine's TPM: its EK certificate, its AK, and a quote over both.

    ``intermediates`` are DER certificates between vendor root and EK that the TPM does not hold.
    """
    draft = EnrolmentRequest(
        kind="custody/enrolment-request/v1",
        host=check_name(host),
        ek_certificate=tpm.ek_certificate(),
        ek_intermediates=tuple(dict.fromkeys((*tpm.ek_intermediates(), *intermediates))),
        ak_public=tpm.ak_public(),
        quote=b"\0",
    )
    attested = tpm.quote(draft.qualifying(), UNJUDGED_PCRS)
    quote = pack_quote(attested.attest, attested.signature)
    return well_formed(replace(draft, quote=quote))


def answer(tpm: EnrollingTpm, challenge: Challenge) -> Answer:
    """Open an enroller's challenge in the TPM; one made for another TPM is `Refused`."""
    secret = tpm.activate(challenge.credential_blob, challenge.encrypted_secret)
    proof = activation_proof(secret, challenge.request, challenge.enroller)
    return Answer(
        kind="custody/enrolment-answer/v1",
        request=challenge.request,
        enroller=challenge.enroller,
        proof=proof,
    )


# ── the enroller ─────────────────────────────────────────────────────────────────────────────────


def ek_digest(request: EnrolmentRequest) -> Digest:
    """Return how an inventory names the EK of a request."""
    return key_id(spki_of(request.ek_certificate))


def vendor_lists(situation: Situation) -> VendorLists:
    """Return the vendors' revocation lists among the files here, and what the policy demands."""
    policy = situation.trusted.policy
    return VendorLists(
        crls=situation.documents.crls,
        demanded=policy.host.vendor_crls,
        floor=situation.crl_floor,
        max_age=timedelta(seconds=policy.limits.crl_max_age_seconds),
    )


def judge_request(
    request: EnrolmentRequest, *, situation: Situation, inventory: Inventory
) -> tuple[Verdict, ...]:
    """Judge all that an enrolment request shows by itself."""
    return (
        *check_endorsement(
            request,
            roots=situation.trusted.policy.host.vendor_roots,
            lists=vendor_lists(situation),
            inventory=inventory,
            now=situation.now,
        ),
        *check_listed_name(request, listed=inventory.get(ek_digest(request))),
        *check_attestation_key(request),
    )


def remember_lists(home: Home, request: EnrolmentRequest, situation: Situation) -> None:
    """Remember the newest lists of the vendors above an EK that was judged by them."""
    chain = vendor_chain(request, situation.trusted.policy.host.vendor_roots)
    remember_vendor_lists(home, authorities=chain[:-1], crls=situation.documents.crls)


def challenge(
    home: Home,
    request: EnrolmentRequest,
    *,
    situation: Situation,
    inventory: Inventory,
    make_credential: CredentialMaker,
    token_random: TokenRandom | None = None,
) -> Challenged:
    """Challenge a host to show that its AK and EK are in one TPM.

    Raises `Refused` with the first check of the request that fails.  A new challenge for the same
    request takes the place of the old one.
    """
    verdicts = judge_request(request, situation=situation, inventory=inventory)
    require(verdicts)
    remember_lists(home, request, situation)
    posed = pose(
        home,
        request,
        challenger=key_id(home.identity().signing_spki),
        make_credential=make_credential,
        now=situation.now,
        token_random=token_random,
    )
    return Challenged(challenge=posed, verdicts=verdicts)


def record(
    home: Home,
    request: EnrolmentRequest,
    given: Answer,
    *,
    signer: Signer,
    situation: Situation,
    inventory: Inventory,
    trust_class: TpmClass,
    onto: Statement[EnrolmentRecord] | None = None,
) -> bytes:
    """Vouch for a host whose answer is right; returns the record (``.dsse``).

    As `vouch`, whose checks are made before the answer is looked at.  The challenge is used up,
    whatever its outcome.
    """
    check_vouching(
        request, signer=signer, situation=situation, inventory=inventory, trust_class=trust_class
    )
    use_up(home, request.digest(), given, challenger=signer.key_id, now=situation.now)
    return vouch(
        request,
        signer=signer,
        situation=situation,
        inventory=inventory,
        trust_class=trust_class,
        onto=onto,
    )


def check_vouching(
    request: EnrolmentRequest,
    *,
    signer: Signer,
    situation: Situation,
    inventory: Inventory,
    trust_class: TpmClass,
) -> None:
    """Refuse what this enroller may not vouch for, whatever the host answers."""
    policy = situation.trusted.policy
    require_signatory(policy, signer.key_id, role="enroller", check="enrolment.signer")
    require(judge_request(request, situation=situation, inventory=inventory))
    if trust_class not in policy.host.trust_classes:
        raise Refused(f"the policy takes no {trust_class} hosts", check="enrolment.class")


def vouch(
    request: EnrolmentRequest,
    *,
    signer: Signer,
    situation: Situation,
    inventory: Inventory,
    trust_class: TpmClass,
    onto: Statement[EnrolmentRecord] | None = None,
) -> bytes:
    """Sign the record of a host that has answered this enroller's challenge rightly.

    ``onto`` is the record that other enrollers have signed: its bytes must be what this enroller
    derives himself, but for the time.
    """
    check_vouching(
        request, signer=signer, situation=situation, inventory=inventory, trust_class=trust_class
    )
    spki = spki_of(request.ek_certificate)
    derived = well_formed(
        EnrolmentRecord(
            environment=situation.trusted.genesis,
            host=request.host,
            epoch=_epoch(key_id(spki), situation, onto),
            ek_spki=key_id(spki),
            ek_certificate=request.ek_certificate,
            ak_public=request.ak_public,
            ak_name=name(request.ak_public).hex(),
            trust_class=trust_class,
            firmware=firmware_of(request),
            enrolled_at=situation.now if onto is None else onto.predicate.enrolled_at,
        )
    )
    if onto is None:
        return signer.statement(derived)
    _check_onto(onto, derived, signer, situation)
    return encode_statement(derived, [*onto.envelope.signatures, signer.signature(derived)])


def replaced(request: EnrolmentRequest, situation: Situation) -> Statement[EnrolmentRecord] | None:
    """Return the newest record known here that a new one of this EK would end."""
    ek_spki = ek_digest(request)
    records = [
        record
        for record in situation.documents.enrolments
        if record.predicate.ek_spki == ek_spki and is_vouched(record, situation.trusted)
    ]
    return max(records, key=lambda record: record.predicate.epoch, default=None)


def namesakes(
    request: EnrolmentRequest, situation: Situation
) -> tuple[Statement[EnrolmentRecord], ...]:
    """Return the records in force known here by which other TPMs are the host of that name."""
    ek_spki = ek_digest(request)
    return tuple(
        record
        for record in situation.documents.enrolments
        if record.predicate.host == request.host
        and record.predicate.ek_spki != ek_spki
        and is_vouched(record, situation.trusted)
        and passed(check_in_force(record, situation))
    )


def differences(record: EnrolmentRecord, request: EnrolmentRequest) -> tuple[str, ...]:
    """Say what of a host has changed since ``record``."""
    now = (
        ("name", record.host == request.host),
        ("EK certificate", record.ek_certificate == request.ek_certificate),
        ("AK", record.ak_public == request.ak_public),
        ("firmware", record.firmware == firmware_of(request)),
    )
    return tuple(what for what, same in now if not same)


def _epoch(ek_spki: Digest, situation: Situation, onto: Statement[EnrolmentRecord] | None) -> int:
    """Number a record behind all that is known of its EK; ``onto`` must have that number.

    Or be in force already: an older number would end nothing, and one far ahead would leave no
    numbers for the records to come.
    """
    seen = enrolment_seen(ek_spki, situation)
    following = max(seen.epoch, seen.retired) + 1
    if onto is None:
        return following
    number = onto.predicate.epoch
    in_force = seen.retired < number == seen.epoch and is_vouched(onto, situation.trusted)
    if number != following and not in_force:
        raise Refused(
            f"it is record {number} of this TPM, and would have to be record {following} by all "
            "that is known here",
            check="enrolment.epoch",
            hint="have the newest records and retirements in --env, or enrol the host again",
        )
    return number


def _check_onto(
    onto: Statement[EnrolmentRecord],
    derived: EnrolmentRecord,
    signer: Signer,
    situation: Situation,
) -> None:
    if encode(onto.predicate) != encode(derived):
        differing = [
            field
            for field in EnrolmentRecord.__struct_fields__
            if getattr(onto.predicate, field) != getattr(derived, field)
        ]
        raise Refused(
            f"the record differs from what you found yourself: {', '.join(differing)}",
            check="enrolment.record",
        )
    check_begun(
        onto.envelope,
        dated=derived.enrolled_at,
        key=signer.key_id,
        threshold=situation.trusted.policy.thresholds.enrolment,
        situation=situation,
        check="enrolment.record",
    )
