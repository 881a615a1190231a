"""The signed policy of one environment.  Format: policy.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto import keyslots
from custody.crypto.keyslots import recipient_id
from custody.crypto.notekeys import KeyKind, NoteKey
from custody.crypto.quorum import Person, Threshold, tree_digest
from custody.crypto.recoverykey import MAX_SET_ID
from custody.encoding import Blob, Digest, KeyId, Moment, Name, Record, Text, key_id
from custody.errors import Malformed
from custody.formats.logpolicy import LogPolicy, canonical_lines, decode_log_policy

Role = Literal["custodian", "publisher", "officer", "enroller", "host", "site", "log", "auditor"]
#: How a secret is sealed to a key, and how to one that agrees rather than decrypts.
SuiteName = keyslots.SuiteName
HpkeSuite = keyslots.HpkeSuite
#: What kind of TPM a host has.
TpmClass = Literal["hardware", "firmware", "virtual", "software"]
#: What a host's word rests on: its TPM, or a key in an HSM, with which its boot state is unknown.
TrustClass = Literal["hardware", "firmware", "virtual", "software", "hsm-key"]
#: What is known of where a key lives: a vendor's chain was verified, its holder says so, or in
#: software.
TokenClass = Literal["vendor-attested", "self-asserted", "software"]
ATTESTED: TokenClass = "vendor-attested"
Mode = Literal["once", "sealed", "sealed-updatable"]
PartDigest = Literal["blake3", "sha256"]
LogDemand = Literal["required", "optional"]
#: What kind of further evidence a request carries: an absolute URI (RFC 3986), ASCII.
FurtherType = Annotated[
    str, msgspec.Meta(max_length=200, pattern=r"\A[a-z][a-z0-9+.-]*:[\x21-\x7e]+\Z")
]

Quorum = Person | Threshold


class SigningKey(Record, frozen=True, tag_field="use", tag="sign"):
    """A key whose signatures count for its principal."""

    spki: Blob
    token_class: TokenClass

    @property
    def key_id(self) -> KeyId:
        """Hex SHA-256 of the SPKI."""
        return key_id(self.spki)


class ShareKey(Record, frozen=True, tag_field="use", tag="share"):
    """A key that secrets are sealed to.  ``mlkem`` is the public ML-KEM-1024 half, if any."""

    spki: Blob
    suite: SuiteName
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    token_class: TokenClass

    @property
    def key_id(self) -> KeyId:
        """The recipient id that key slots name."""
        return recipient_id(self.spki, self.mlkem)


class Principal(Record, frozen=True):
    """A person, host or service, with every key that speaks for it."""

    id: Name
    name: Text
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=8)]
    keys: Annotated[tuple[SigningKey | ShareKey, ...], msgspec.Meta(min_length=1, max_length=16)]


class Thresholds(Record, frozen=True):
    """How many distinct principals must sign each kind of many-signer statement.

    Never one: a single custodian who may write policies, or a single enroller who may approve a
    boot state, is everybody.
    """

    root: Annotated[int, msgspec.Meta(ge=2, le=32)]
    enrolment: Annotated[int, msgspec.Meta(ge=2, le=32)]
    golden: Annotated[int, msgspec.Meta(ge=2, le=32)]


class HostRequirements(Record, frozen=True):
    """What a host's TPM must show.  ``vendor_roots`` are DER certificates.

    ``event_log``: whether a request must explain its registers by a log.  One that is shown is
    judged in either case.  ``vendor_crls`` are the vendor roots, by key id, whose EK certificates
    count only with fresh revocation lists.  ``further`` is the evidence demanded beside the TPM's.
    """

    bank: Literal["sha256"]
    pcrs: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, le=23)], ...],
        msgspec.Meta(min_length=1, max_length=24),
    ]
    trust_classes: Annotated[tuple[TrustClass, ...], msgspec.Meta(min_length=1, max_length=5)]
    vendor_roots: Annotated[tuple[Blob, ...], msgspec.Meta(min_length=1, max_length=64)]
    event_log: LogDemand
    vendor_crls: Annotated[tuple[KeyId, ...], msgspec.Meta(max_length=64)]
    further: Annotated[tuple[FurtherType, ...], msgspec.Meta(max_length=8)]


class Limits(Record, frozen=True):
    """Bounds in seconds."""

    request_window_seconds: Annotated[int, msgspec.Meta(ge=60, le=30 * 86400)]
    approval_seconds: Annotated[int, msgspec.Meta(ge=60, le=30 * 86400)]
    crl_max_age_seconds: Annotated[int, msgspec.Meta(ge=3600, le=400 * 86400)]


class RecoveryKey(Record, frozen=True):
    """The key that content keys are sealed to besides, and who together can rebuild it.

    ``among`` is who holds its shares; ``record`` the statement that says what each must be
    (recovery.md).
    """

    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    suite: HpkeSuite
    spki: Blob
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    set_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_SET_ID)]
    among: Quorum
    record: Digest

    @property
    def key_id(self) -> KeyId:
        """The recipient id that key slots name."""
        return recipient_id(self.spki, self.mlkem)


class Policy(Record, frozen=True):
    """Who may do what in one environment.  Its signatures are not checked yet.

    ``logged``: the lines of a C2SP tlog-policy with the one log whose signature a release needs,
    and the witnesses that count; None where releases need no log.  ``recovery``: the key that every
    bundle is sealed to besides, or None.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:policy:v1"
    MANY_SIGNERS: ClassVar[bool] = True

    environment: Name
    genesis: Digest | None
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    issued_at: Moment
    expires_at: Moment
    principals: Annotated[tuple[Principal, ...], msgspec.Meta(min_length=1, max_length=256)]
    token_classes: Annotated[tuple[TokenClass, ...], msgspec.Meta(min_length=1, max_length=3)]
    authorities: Annotated[tuple[Blob, ...], msgspec.Meta(min_length=1, max_length=16)]
    quorum: Quorum
    thresholds: Thresholds
    host: HostRequirements
    limits: Limits
    modes: Annotated[tuple[Mode, ...], msgspec.Meta(min_length=1, max_length=3)]
    part_digest: PartDigest
    weakest_suite: SuiteName
    self_approval: bool
    withdrawn: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=65536)]
    logged: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=256)] | None
    recovery: RecoveryKey | None

    def subject(self) -> tuple[str, Digest]:
        """Name the environment, version and quorum tree."""
        return f"{self.environment}/{self.version}", tree_digest(self.quorum)

    def principal(self, name: str) -> Principal | None:
        """Return the principal of that id."""
        return next((p for p in self.principals if p.id == name), None)

    def holder(self, key: KeyId) -> Principal | None:
        """Return the principal a key belongs to, whatever its use."""
        return next((p for p in self.principals if any(k.key_id == key for k in p.keys)), None)

    def signing_key(self, key: KeyId) -> SigningKey | None:
        """Return the listed signing key of that id."""
        for principal in self.principals:
            for candidate in principal.keys:
                if isinstance(candidate, SigningKey) and candidate.key_id == key:
                    return candidate
        return None

    @property
    def hosts(self) -> tuple[Principal, ...]:
        """Machines without a TPM, known by keys in an HSM."""
        return tuple(person for person in self.principals if "host" in person.roles)

    @property
    def sites(self) -> tuple[Principal, ...]:
        """Places whose HSM it takes to open a bundle; none: it takes none."""
        return tuple(person for person in self.principals if "site" in person.roles)

    def log_policy(self) -> LogPolicy | None:
        """Return which log and witnesses count here; lines that say something else: `Malformed`."""
        if self.logged is None:
            return None
        text = "".join(f"{line}\n" for line in self.logged)
        found = decode_log_policy(text.encode())
        if canonical_lines(text.encode()) != self.logged:
            raise Malformed("lines of a log policy have one space between words, and no comments")
        if len(found.logs) != 1 or found.logs[0].key.kind is not KeyKind.ECDSA:
            raise Malformed("names another number of logs than one, or one without a P-256 key")
        return found

    def log_key(self) -> NoteKey | None:
        """Return the key of the log whose signature a release needs."""
        found = self.log_policy()
        return None if found is None else found.logs[0].key
