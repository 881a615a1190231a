"""Ask for a bundle: fix the terms, make H for them, show evidence.  Protocol section 5."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import mlkem

from custody.crypto.bind import bind
from custody.crypto.secret import wipe
from custody.crypto.tpmpolicy import host_policy
from custody.encoding import key_id, sha256
from custody.errors import Incomplete, Refused
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.evidence import Curve, EccPublic, name, pack_quote, parse_public, spki
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import Manifest
from custody.formats.policy import HpkeSuite, Mode, Policy
from custody.formats.request import Creation, Further, Request, Terms
from custody.keys.hostapi import Counter, HostKey, HostTpm, SealedSeed
from custody.ops.outstanding import Outstanding
from custody.ops.receipts import HostPlace, end_dead
from custody.rules.attestation import conditions_of
from custody.rules.enrolment import check_in_force
from custody.rules.manifest import check_manifest
from custody.rules.quorum import signing_tree
from custody.rules.request import check_request, endorsement_key
from custody.rules.situation import Situation
from custody.rules.trust import count_signers
from custody.rules.verdicts import require

_MLKEM_SEED_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A request and its file."""

    statement: Statement[Request]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    """Who this host is, by what the environment's files say of its TPM."""

    enrolment: Statement[EnrolmentRecord]
    golden: Statement[GoldenSet]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What a host shows beside its TPM's words."""

    event_log: bytes
    further: tuple[Further, ...]


def request_release(
    manifest: Statement[Manifest],
    *,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    event_log: bytes = b"",
    mode: Mode = "once",
    further: Sequence[Further] = (),
) -> Requested:
    """Make a request for ``manifest``; the caller writes `Requested.data` as ``request.dsse``.

    Requests of this host whose keys are dead are ended, and their burn receipts written.
    ``mode`` ``sealed`` asks for leave to keep the key over restarts of this boot state.
    ``further`` is evidence of other kinds, in order of type.  The request is judged here exactly as
    officers will judge it.  Raises `Incomplete` when no counter is free (naming the open requests),
    `Refused` when the host is not enrolled or not in an approved boot state.
    """
    require(check_manifest(manifest, situation))
    with tpm.conversation():
        host = _identify(tpm, situation)
    # From here on secrets cross the bus.  Who sits on it can show a certificate of his own, and
    # would be sent them; he cannot show one with the EK that the enrollers vouch for.
    salted = tpm.salted_to(endorsement_key(host.enrolment.predicate))
    shown = _Shown(event_log=event_log, further=tuple(further))
    with place.ledger.lock():
        end_dead(salted, place, now=situation.now)
        with salted.conversation():
            return _make(manifest, host, salted, situation, place, shown, mode)


def _make(
    manifest: Statement[Manifest],
    host: _Host,
    tpm: HostTpm,
    situation: Situation,
    place: HostPlace,
    shown: _Shown,
    mode: Mode,
) -> Requested:
    """Take a counter, make H for it, attest both, and remember them."""
    policy = situation.trusted.policy
    counter = _free_counter(tpm, place)
    terms = _terms(manifest, host, counter, tpm, situation, mode)
    tree, officers = signing_tree(policy)
    auth_policy = host_policy(
        tree,
        officers,
        terms=terms.digest(),
        conditions=conditions_of(terms, host.golden.predicate),
    )
    key = tpm.create_host_key(
        auth_policy,
        tuple(policy.host.pcrs),
        curve=Curve.P384 if policy.weakest_suite in ("P384", "MLKEM1024_P384") else None,
    )
    suite = _suite(policy, manifest.predicate, key)
    seed, mlkem_public = _post_quantum_half(tpm, auth_policy, suite)
    request = _request(key, mlkem_public, terms, host, tpm, situation, counter, shown, suite)
    quote = tpm.quote(
        bind("request", bytes.fromhex(statement_digest(request))), tuple(policy.host.pcrs)
    )
    signature = Signature(
        keyid=key_id(spki(request.ak_public)), sig=pack_quote(quote.attest, quote.signature)
    )
    data = encode_statement(request, [signature])
    statement = decode_statement(Request, data)
    require(check_request(statement, manifest, situation))
    place.ledger.keep(
        _entry(statement, counter, key, seed, tuple(policy.host.pcrs), host.enrolment.predicate)
    )
    return Requested(statement=statement, data=data)


def _identify(tpm: HostTpm, situation: Situation) -> _Host:
    """Find this TPM's enrolment record, and the golden set its registers are in."""
    ak_name = name(tpm.ak_public()).hex()
    genesis = situation.trusted.genesis
    records = [
        record
        for record in situation.documents.enrolments
        if record.predicate.ak_name == ak_name
        and record.predicate.environment == genesis
        and _vouched(record, "enrolment", situation)
    ]
    if not records:
        raise Refused(
            "this host's TPM is not enrolled in this environment",
            check="host.enrolled",
            hint="custody host enroll, then ask the enrollers for a record",
        )
    newest = max(records, key=lambda r: (r.predicate.epoch, r.predicate.enrolled_at))
    require(check_in_force(newest, situation))
    return _Host(enrolment=newest, golden=_boot_state(tpm, situation))


def _vouched(
    statement: Statement[EnrolmentRecord] | Statement[GoldenSet],
    kind: Literal["enrolment", "golden"],
    situation: Situation,
) -> bool:
    """Whether the threshold signed it; a draft or a forgery in the folder must not be chosen."""
    policy = situation.trusted.policy
    needed = getattr(policy.thresholds, kind)
    signed = count_signers(statement.envelope, policy, role="enroller", needed=needed)
    return not signed.missing


def _boot_state(tpm: HostTpm, situation: Situation) -> Statement[GoldenSet]:
    pcrs = tuple(situation.trusted.policy.host.pcrs)
    values = tpm.pcr_values(pcrs)
    live = sha256(*values).hex()
    sets = [
        golden
        for golden in situation.documents.golden_sets
        if golden.predicate.environment == situation.trusted.genesis
        and golden.predicate.selection() == pcrs
        and _vouched(golden, "golden", situation)
    ]
    matching = [golden for golden in sets if golden.predicate.pcr_digest() == live]
    if matching:
        return max(matching, key=lambda golden: golden.predicate.epoch)
    if not sets:
        raise Refused("there is no golden set for this environment here", check="host.golden")
    nearest = max(sets, key=lambda golden: golden.predicate.epoch)
    changed = [
        str(expected.pcr)
        for expected, value in zip(nearest.predicate.pcrs, values, strict=True)
        if expected.value != value.hex()
    ]
    raise Refused(
        f"boot state is no golden set's: pcr {', '.join(changed)} differ from "
        f"{nearest.predicate.name}, epoch {nearest.predicate.epoch}",
        check="host.golden",
        hint="boot the approved system, or have the new state approved: custody host measure",
    )


def _free_counter(tpm: HostTpm, place: HostPlace) -> Counter:
    living = place.ledger.all()
    try:
        return tpm.allocate_counter({entry.counter_index for entry in living})
    except Incomplete as error:
        raise Incomplete(
            f"all {len(living)} of this TPM's counters are held by open requests",
            missing=[entry.request for entry in living],
            hint="finish one, or give it up with: custody host cancel REQUEST",
        ) from error


def _terms(
    manifest: Statement[Manifest],
    host: _Host,
    counter: Counter,
    tpm: HostTpm,
    situation: Situation,
    mode: Mode,
) -> Terms:
    clock, seen = tpm.clock(), last_head(situation)
    window_ms = situation.trusted.policy.limits.request_window_seconds * 1000
    return Terms(
        manifest=manifest.digest,
        policy=situation.trusted.digest,
        mode=mode,
        ek_spki=host.enrolment.predicate.ek_spki,
        ak_name=host.enrolment.predicate.ak_name,
        nv_name=counter.name.hex(),
        counter=counter.value,
        reset_count=clock.reset_count,
        restart_count=clock.restart_count,
        deadline_ms=clock.clock_ms + window_ms,
        pcr_digest=host.golden.predicate.pcr_digest(),
        checkpoint=None if seen is None else sha256(seen.checkpoint.text().encode()).hex(),
    )


def last_head(situation: Situation) -> SignedCheckpoint | None:
    """Return the last head seen of the log that the policy names, if it names one."""
    log = situation.trusted.policy.log_key()
    if log is not None and situation.seen is None:
        raise Incomplete(
            "releases here are logged, and this host has never seen the log",
            missing=(f"a checkpoint of {log.name}",),
            hint="custody host request --log DIR|URL",
        )
    return situation.seen if log is not None else None


def _suite(policy: Policy, manifest: Manifest, key: HostKey) -> HpkeSuite:
    """Use what the policy demands, and otherwise the best this TPM's curve and the bundle allow.

    Shares go through approvals, which are files: recorded, they would give a quantum computer what
    a hybrid slot keeps from it.
    """
    public = parse_public(key.public)
    strong = isinstance(public, EccPublic) and public.curve is Curve.P384
    hybrid = any(
        slot.purpose == "share" and slot.suite == "MLKEM1024_P384"
        for slot in manifest.envelope.slots
    )
    if policy.weakest_suite == "MLKEM1024_P384" or (strong and hybrid):
        return "MLKEM1024_P384"
    return "P384" if strong else "P256"


def _post_quantum_half(
    tpm: HostTpm, auth_policy: bytes, suite: HpkeSuite
) -> tuple[SealedSeed | None, bytes | None]:
    if suite != "MLKEM1024_P384":
        return None, None
    seed = bytearray(os.urandom(_MLKEM_SEED_BYTES))
    try:
        private = mlkem.MLKEM1024PrivateKey.from_seed_bytes(bytes(seed))
        return tpm.seal_seed(auth_policy, seed), private.public_key().public_bytes_raw()
    finally:
        wipe(seed)


def _request(
    key: HostKey,
    mlkem_public: bytes | None,
    terms: Terms,
    host: _Host,
    tpm: HostTpm,
    situation: Situation,
    counter: Counter,
    shown: _Shown,
    suite: HpkeSuite,
) -> Request:
    creation = tpm.certify_creation(key, terms.digest())
    return Request(
        terms=terms,
        environment=situation.trusted.genesis,
        host=host.enrolment.predicate.host,
        enrolment=host.enrolment.digest,
        golden=host.golden.digest,
        suite=suite,
        key=Creation(
            public=key.public,
            parent_public=key.parent_public,
            creation_data=key.creation_data,
            attest=creation.attest,
            signature=creation.signature,
        ),
        mlkem=mlkem_public,
        ak_public=tpm.ak_public(),
        nv_public=counter.public,
        event_log=shown.event_log,
        requested_at=situation.now,
        checkpoint=None if situation.seen is None else situation.seen.encode(),
        further=shown.further,
    )


def _entry(
    statement: Statement[Request],
    counter: Counter,
    key: HostKey,
    seed: SealedSeed | None,
    pcrs: tuple[int, ...],
    enrolment: EnrolmentRecord,
) -> Outstanding:
    terms = statement.predicate.terms
    return Outstanding(
        kind="custody/outstanding/v1",
        request=statement.digest,
        manifest=terms.manifest,
        terms=terms.digest().hex(),
        mode=terms.mode,
        endorsement_key=endorsement_key(enrolment),
        pcrs=pcrs,
        counter_index=counter.index,
        counter=counter.value,
        reset_count=terms.reset_count,
        restart_count=terms.restart_count,
        deadline_ms=terms.deadline_ms,
        requested_at=statement.predicate.requested_at,
        host_key=key,
        seed=seed,
        landing=None,
    )
