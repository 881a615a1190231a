"""Statements of every kind, as hypothesis draws them: every field anywhere within its limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import hypothesis.strategies as st
import msgspec

from custody.crypto.keyslots import recipient_id
from custody.crypto.quorum import Person, Threshold
from custody.encoding import key_id
from custody.formats.approval import Approval, Denial
from custody.formats.authorisation import Authorisation
from custody.formats.burn import Burn
from custody.formats.disposal import Disposal
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Predicate, Signature
from custody.formats.forgotten import Forgotten
from custody.formats.goldenset import Component, GoldenSet, PcrEvents, PcrValue
from custody.formats.keyrequest import Consent, KeyReceipt, KeyRequest, KeyTerms
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.manifest import (
    Core,
    KeySlot,
    LeafCommitment,
    Manifest,
    SecretEnvelope,
    Wrap,
)
from custody.formats.policy import (
    HostRequirements,
    HpkeSuite,
    Limits,
    Policy,
    Principal,
    RecoveryKey,
    ShareKey,
    SigningKey,
    SuiteName,
    Thresholds,
)
from custody.formats.receipt import BadShare, Receipt
from custody.formats.recovery import (
    BreakGlass,
    RecoveryRecord,
    RecoveryShare,
    UsedShare,
    share_set,
)
from custody.formats.request import Creation, Further, Request, Terms
from custody.formats.retirement import Retirement

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")
#: Every character but those that `Text` keeps out.
TEXTS = st.text(
    st.characters(
        exclude_categories=("Cs", "Cc"),
        exclude_characters="\ufeff\ufffe\uffff"
        + "".join(chr(c) for c in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))),
    ),
    max_size=40,
)
COUNTS = st.integers(0, 2**53 - 1)
MOMENTS = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001  (the zone is added by hypothesis)
    datetime(9998, 12, 31, 23, 59, 59),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))
BLOBS = st.binary(min_size=1, max_size=60)
BYTES32 = st.binary(min_size=32, max_size=32)
TPM_NAMES = st.one_of(
    DIGESTS.map("000b".__add__), st.binary(min_size=48, max_size=48).map(lambda b: "000c" + b.hex())
)
SUITES: st.SearchStrategy[SuiteName] = st.sampled_from(get_args(SuiteName))
HPKE_SUITES: st.SearchStrategy[HpkeSuite] = st.sampled_from(get_args(HpkeSuite))
MODES = ("once", "sealed", "sealed-updatable")
MLKEM = st.none() | st.integers(0, 255).map(lambda byte: bytes([byte]) * 1568)
LEAVES = st.lists(st.integers(0, 31), min_size=1, max_size=8).map(lambda p: "/".join(map(str, p)))
SEALED = st.binary(min_size=16, max_size=200)


def several(items: st.SearchStrategy[Any], least: int = 1, most: int = 4) -> st.SearchStrategy[Any]:
    """Tuples of items."""
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def distinct(
    items: st.SearchStrategy[Any], least: int = 1, most: int = 4
) -> st.SearchStrategy[Any]:
    """Tuples of items in order, each once."""
    listed = st.lists(items, min_size=least, max_size=most, unique=True)
    return listed.map(lambda values: tuple(sorted(values)))


FURTHER_TYPES = st.from_regex(r"\A[a-z][a-z0-9+.-]{0,9}:[\x21-\x7e]{1,40}\Z")
PEOPLE = st.builds(Person, principal=NAMES)
TREES = st.recursive(
    PEOPLE,
    lambda nodes: st.builds(Threshold, k=st.integers(1, 32), of=several(nodes)),
    max_leaves=8,
)
TOKENS = st.sampled_from(("vendor-attested", "self-asserted", "software"))
KEYS = st.builds(SigningKey, spki=BLOBS, token_class=TOKENS) | st.builds(
    ShareKey, spki=BLOBS, suite=SUITES, mlkem=MLKEM, token_class=TOKENS
)
ROLES = st.sampled_from(
    ("custodian", "publisher", "officer", "enroller", "host", "site", "log", "auditor")
)
POLICIES = st.builds(
    Policy,
    environment=NAMES,
    genesis=st.none() | DIGESTS,
    version=st.integers(1, 2**31),
    issued_at=MOMENTS,
    expires_at=MOMENTS,
    principals=several(
        st.builds(Principal, id=NAMES, name=TEXTS, roles=several(ROLES), keys=several(KEYS, 1, 2)),
    ),
    token_classes=several(TOKENS, 1, 3),
    authorities=several(BLOBS),
    quorum=TREES,
    thresholds=st.builds(
        Thresholds,
        root=st.integers(2, 32),
        enrolment=st.integers(2, 32),
        golden=st.integers(2, 32),
    ),
    host=st.builds(
        HostRequirements,
        bank=st.just("sha256"),
        pcrs=several(st.integers(0, 23)),
        trust_classes=several(st.sampled_from(("hardware", "firmware", "virtual", "software"))),
        vendor_roots=several(BLOBS),
        event_log=st.sampled_from(("required", "optional")),
        vendor_crls=several(DIGESTS, 0),
        further=several(FURTHER_TYPES, 0),
    ),
    limits=st.builds(
        Limits,
        request_window_seconds=st.integers(60, 30 * 86400),
        approval_seconds=st.integers(60, 30 * 86400),
        crl_max_age_seconds=st.integers(3600, 400 * 86400),
    ),
    modes=several(st.sampled_from(MODES), 1, 3),
    part_digest=st.sampled_from(("blake3", "sha256")),
    weakest_suite=SUITES,
    self_approval=st.booleans(),
    withdrawn=several(DIGESTS, 0),
    logged=st.none() | several(TEXTS),
    recovery=st.none()
    | st.builds(
        RecoveryKey,
        epoch=st.integers(1, 2**31),
        suite=HPKE_SUITES,
        spki=BLOBS,
        mlkem=MLKEM,
        set_id=st.integers(0, 2**15 - 1),
        among=TREES,
        record=DIGESTS,
    ),
)
ENROLMENTS = st.builds(
    EnrolmentRecord,
    environment=DIGESTS,
    host=NAMES,
    epoch=st.integers(1, 2**31),
    ek_spki=DIGESTS,
    ek_certificate=BLOBS,
    ak_public=BLOBS,
    ak_name=TPM_NAMES,
    trust_class=st.sampled_from(("hardware", "firmware", "virtual", "software")),
    firmware=st.binary(min_size=8, max_size=8).map(bytes.hex),
    enrolled_at=MOMENTS,
)
RETIREMENTS = st.builds(
    Retirement,
    environment=DIGESTS,
    host=NAMES,
    ek_spki=DIGESTS,
    record=DIGESTS,
    epoch=st.integers(1, 2**31),
    reason=TEXTS,
    retired_at=MOMENTS,
)
_COMPONENTS = st.lists(st.builds(Component, label=TEXTS, digest=DIGESTS), max_size=3).map(tuple)
REGISTERS = st.dictionaries(st.integers(0, 15), DIGESTS | _COMPONENTS, min_size=1, max_size=4).map(
    lambda found: tuple(
        PcrValue(pcr=n, value=was)
        if isinstance(was, str)
        else PcrEvents(pcr=n, locality=0, components=was)
        for n, was in sorted(found.items())
    )
)
GOLDEN_SETS = st.builds(
    GoldenSet,
    environment=DIGESTS,
    name=NAMES,
    notes=TEXTS,
    epoch=st.integers(2, 2**31),
    oldest=st.integers(1, 2),
    bank=st.just("sha256"),
    pcrs=REGISTERS,
    issued_at=MOMENTS,
)
_PERIODS = st.lists(MOMENTS, min_size=2, max_size=2, unique=True).map(sorted)
CORES = st.builds(
    lambda period, **fields: Core(sealed_at=period[0], not_after=period[1], **fields),
    period=_PERIODS,
    payload_id=DIGESTS,
    environment=DIGESTS,
    policy_version=st.integers(1, 2**31),
    tree=DIGESTS,
    publisher=DIGESTS,
    part_size_bytes=st.integers(16, 26).map(lambda power: 1 << power),
    part_count=st.integers(1, 1 << 24),
    part_digest=st.sampled_from(("blake3", "sha256")),
    parts_root=DIGESTS,
    cek_commitment=DIGESTS,
    contents=DIGESTS,
    contents_size_bytes=COUNTS,
    site=st.none(),
    recovery=st.none(),
    replaces=st.none() | DIGESTS,
)
SLOTS = st.one_of(
    st.tuples(st.just("share"), LEAVES, DIGESTS),
    st.tuples(st.just("contents"), st.just(""), DIGESTS),
)


@st.composite
def envelopes(draw: st.DrawFn) -> SecretEnvelope:
    """Slots, commitments and wraps in their order."""
    slots = tuple(
        KeySlot(
            purpose=purpose,
            leaf=leaf,
            recipient=recipient,
            suite=draw(SUITES),
            sealed=draw(SEALED),
        )
        for purpose, leaf, recipient in draw(distinct(SLOTS))
    )
    commitments = tuple(
        LeafCommitment(leaf=leaf, commitment=draw(DIGESTS)) for leaf in draw(distinct(LEAVES))
    )
    wraps = tuple(
        Wrap(
            purpose=purpose,
            salt=draw(BYTES32),
            sealed=draw(st.binary(min_size=48, max_size=48)),
        )
        for purpose in ("cek", "contents")
    )
    return SecretEnvelope(slots=slots, commitments=commitments, wraps=wraps)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """A core and an envelope, with recovery and site keys in both or in neither."""
    core, envelope = draw(CORES), draw(envelopes())
    recovery = draw(st.none() | DIGESTS)
    site = draw(st.none() | distinct(DIGESTS).map(lambda keys: tuple(sorted(keys))))
    wanted: Any = (("recovery", [recovery] if recovery else []), ("site", site or ()))
    added = [
        KeySlot(purpose=purpose, leaf="", recipient=key, suite=draw(SUITES), sealed=draw(SEALED))
        for purpose, keys in wanted
        for key in keys
    ]
    slots = sorted((*envelope.slots, *added), key=lambda s: (s.purpose, s.leaf, s.recipient))
    return Manifest(
        core=msgspec.structs.replace(core, recovery=recovery, site=site),
        envelope=msgspec.structs.replace(envelope, slots=tuple(slots)),
    )


MANIFESTS = manifests()
U32 = st.integers(0, 2**32 - 1)
TERMS = st.builds(
    Terms,
    manifest=DIGESTS,
    policy=DIGESTS,
    mode=st.sampled_from(MODES),
    ek_spki=DIGESTS,
    ak_name=TPM_NAMES,
    nv_name=TPM_NAMES,
    counter=COUNTS,
    reset_count=U32,
    restart_count=U32,
    deadline_ms=COUNTS,
    pcr_digest=DIGESTS,
    checkpoint=st.none() | DIGESTS,
)
REQUESTS = st.builds(
    Request,
    terms=TERMS,
    environment=DIGESTS,
    host=NAMES,
    enrolment=DIGESTS,
    golden=DIGESTS,
    suite=HPKE_SUITES,
    key=st.builds(
        Creation,
        public=BLOBS,
        parent_public=BLOBS,
        creation_data=BLOBS,
        attest=BLOBS,
        signature=BLOBS,
    ),
    mlkem=MLKEM,
    ak_public=BLOBS,
    nv_public=BLOBS,
    event_log=st.binary(max_size=100),
    requested_at=MOMENTS,
    checkpoint=st.none() | BLOBS,
    further=st.lists(
        st.builds(Further, type=FURTHER_TYPES, evidence=BLOBS),
        max_size=3,
        unique_by=lambda further: further.type,
    ).map(lambda found: tuple(sorted(found, key=lambda further: further.type))),
)
APPROVALS = st.builds(
    Approval,
    request=DIGESTS,
    manifest=DIGESTS,
    policy=DIGESTS,
    terms=DIGESTS,
    leaf=LEAVES | st.just(""),
    sealed_share=SEALED,
    terms_signature=st.binary(min_size=8, max_size=80),
    approved_at=MOMENTS,
    expires_at=MOMENTS,
)
DENIALS = st.builds(
    Denial,
    author=DIGESTS,
    request=DIGESTS,
    manifest=DIGESTS,
    policy=DIGESTS,
    terms=DIGESTS,
    reason=TEXTS,
    denied_at=MOMENTS,
)

KEY_TERMS = st.builds(
    KeyTerms,
    manifest=DIGESTS,
    policy=DIGESTS,
    recipient=DIGESTS,
    nonce=DIGESTS,
    deadline=MOMENTS,
    checkpoint=st.none() | DIGESTS,
)


@st.composite
def key_requests(draw: st.DrawFn) -> KeyRequest:
    """A request whose terms name the key that is in it."""
    signer, recipient, mlkem = draw(BLOBS), draw(BLOBS), draw(MLKEM)
    terms = msgspec.structs.replace(draw(KEY_TERMS), recipient=recipient_id(recipient, mlkem))
    return KeyRequest(
        author=key_id(signer),
        terms=terms,
        environment=draw(DIGESTS),
        host=draw(NAMES),
        signer=signer,
        suite=draw(HPKE_SUITES),
        recipient=recipient,
        mlkem=mlkem,
        requested_at=draw(MOMENTS),
        checkpoint=draw(st.none() | BLOBS),
    )


KEY_REQUESTS = key_requests()
CONSENTS = st.builds(
    Consent,
    author=DIGESTS,
    request=DIGESTS,
    manifest=DIGESTS,
    policy=DIGESTS,
    terms=DIGESTS,
    consented_at=MOMENTS,
    expires_at=MOMENTS,
)


def _logged(rows: list[tuple[str, int]], **fields: Any) -> Logged:
    return Logged(
        entries=tuple(
            LoggedStatement(statement=statement, kind="approval", index=index, proof=(bytes(32),))
            for (statement, index) in sorted(rows, key=lambda row: row[1])
        ),
        **fields,
    )


LOGGED = st.builds(
    _logged,
    rows=st.lists(
        st.tuples(DIGESTS, COUNTS),
        min_size=1,
        max_size=4,
        unique_by=(lambda row: row[0], lambda row: row[1]),
    ),
    request=DIGESTS,
    manifest=DIGESTS,
    policy=DIGESTS,
    terms=DIGESTS,
    checkpoint=BLOBS,
    consistency=several(BYTES32, 0),
    terms_signature=st.binary(min_size=8, max_size=80),
    logged_at=MOMENTS,
)
RECEIPTS = st.builds(
    Receipt,
    request=DIGESTS,
    manifest=DIGESTS,
    terms=DIGESTS,
    outcome=st.sampled_from(("opened", "retained", "failed")),
    reason=TEXTS,
    approvals=distinct(DIGESTS, 0),
    bad_shares=several(st.builds(BadShare, leaf=LEAVES, officer=DIGESTS, approval=DIGESTS), 0),
    counter=COUNTS,
    finished_at=MOMENTS,
)
KEY_RECEIPTS = st.builds(
    KeyReceipt,
    author=DIGESTS,
    request=DIGESTS,
    manifest=DIGESTS,
    terms=DIGESTS,
    outcome=st.sampled_from(("opened", "failed")),
    reason=TEXTS,
    approvals=distinct(DIGESTS, 0),
    bad_shares=several(st.builds(BadShare, leaf=LEAVES, officer=DIGESTS, approval=DIGESTS), 0),
    finished_at=MOMENTS,
)
FORGOTTEN = st.builds(
    Forgotten,
    request=DIGESTS,
    manifest=DIGESTS,
    counter_index=U32,
    counter=COUNTS,
    forgotten_at=MOMENTS,
)
DISPOSALS = st.builds(
    Disposal,
    environment=DIGESTS,
    manifest=DIGESTS,
    replaced_by=st.none() | DIGESTS,
    destroyed=distinct(st.sampled_from(("bundle", "record", "unfinished")), 1, 3),
    destroyed_bytes=COUNTS,
    disposed_at=MOMENTS,
)
BURNS = st.builds(Burn, request=DIGESTS, receipt=DIGESTS, counter=COUNTS, burned_at=MOMENTS)
AUTHORISATIONS = st.builds(
    Authorisation,
    environment=DIGESTS,
    golden=DIGESTS,
    state_signature=st.binary(min_size=8, max_size=80),
    authorised_at=MOMENTS,
)


@st.composite
def recovery_records(draw: st.DrawFn) -> RecoveryRecord:
    """A key, and a share for each of some people in groups."""
    people = iter(draw(st.lists(NAMES, min_size=9, max_size=9, unique=True)))
    groups = tuple(
        Threshold(k=2, of=tuple(Person(principal=next(people)) for _ in range(size)))
        for size in draw(st.lists(st.integers(2, 3), min_size=1, max_size=3))
    )
    among = groups[0] if len(groups) == 1 else Threshold(k=draw(st.integers(1, 2)), of=groups)
    return RecoveryRecord(
        author=draw(DIGESTS),
        environment=draw(NAMES),
        epoch=draw(st.integers(1, 2**31)),
        suite=draw(HPKE_SUITES),
        spki=draw(BLOBS),
        mlkem=draw(MLKEM),
        set_id=draw(st.integers(0, 2**15 - 1)),
        iteration_exponent=draw(st.integers(0, 15)),
        passphrase=draw(st.booleans()),
        among=among,
        shares=tuple(
            RecoveryShare(
                group=at, member=member, holder=holder, salt=draw(BYTES32), digest=draw(DIGESTS)
            )
            for at, group in enumerate(share_set(among).groups)
            for member, holder in enumerate(group.holders)
        ),
        made_at=draw(MOMENTS),
    )


RECOVERY_RECORDS = recovery_records()
BROKEN = st.builds(
    BreakGlass,
    author=DIGESTS,
    environment=DIGESTS,
    manifest=DIGESTS,
    replacement=DIGESTS,
    recovery=DIGESTS,
    record=DIGESTS,
    shares=distinct(st.tuples(st.integers(0, 15), st.integers(0, 15)), 2).map(
        lambda places: tuple(UsedShare(group=g, member=m, holder="ida") for g, m in places)
    ),
    reason=TEXTS.filter(bool),
    opened_at=MOMENTS,
)

#: By kind.
STATEMENTS: dict[type[Predicate], st.SearchStrategy[Any]] = {
    Policy: POLICIES,
    EnrolmentRecord: ENROLMENTS,
    Retirement: RETIREMENTS,
    GoldenSet: GOLDEN_SETS,
    Manifest: MANIFESTS,
    Request: REQUESTS,
    KeyRequest: KEY_REQUESTS,
    Consent: CONSENTS,
    Approval: APPROVALS,
    Denial: DENIALS,
    Receipt: RECEIPTS,
    KeyReceipt: KEY_RECEIPTS,
    Burn: BURNS,
    Disposal: DISPOSALS,
    Forgotten: FORGOTTEN,
    Authorisation: AUTHORISATIONS,
    RecoveryRecord: RECOVERY_RECORDS,
    BreakGlass: BROKEN,
    Logged: LOGGED,
}


def signatures(kind: type[Predicate]) -> st.SearchStrategy[Any]:
    """As many signatures as a kind may have."""
    one = st.builds(Signature, keyid=DIGESTS, sig=st.binary(min_size=1, max_size=80))
    most = 4 if kind.MANY_SIGNERS else 1
    return st.lists(one, min_size=1, max_size=most, unique_by=lambda s: s.keyid)
