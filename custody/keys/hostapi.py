"""What a deploy host asks of its TPM.  Protocol: docs/protocol.md section 5.

All structures cross this interface as the TPM's own bytes (evidence.md): TPMT_PUBLIC, TPMS_ATTEST,
TPMT_SIGNATURE and so on, without the two size bytes of their TPM2B wrappings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.quorum import Person, Threshold
from custody.crypto.tpmpolicy import Conditions, host_policy
from custody.crypto.tpmretained import MAX_SHARES, Line
from custody.encoding import Blob, Count, Digest, Name, Record
from custody.formats.evidence import Curve
from custody.formats.goldenset import Epoch
from custody.formats.request import U32

#: What a quote is over where its registers are not judged, and the rest of it is.
UNJUDGED_PCRS = (0,)
#: The counters of what is kept for restarts, one each (owner range).
RETAINED_INDEXES = range(0x01800C10, 0x01800C18)
#: How far behind each of them lies the counter of its epoch, where it has one.
EPOCH_INDEX_OFFSET = len(RETAINED_INDEXES)

#: An RSA-4096 key is 550 bytes.
MAX_EK_SPKI_BYTES = 1024


class Attested(NamedTuple):
    """A TPMS_ATTEST and the AK's TPMT_SIGNATURE over it."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The TPM's clock: powered-on milliseconds, and how often it was reset and restarted."""

    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """An NV counter of the pool.  ``public`` is its TPMS_NV_PUBLIC."""

    index: int
    public: bytes
    name: bytes
    value: int


class CertifiedKey(NamedTuple):
    """A key's TPMT_PUBLIC, and what the AK attests of it (TPM2_Certify, part 3 section 18.2)."""

    public: bytes
    attested: Attested


class HostKey(Record, frozen=True, kw_only=True):
    """H and how it came to be.  ``private`` is readable only by the TPM that made it, this boot."""

    public: Blob
    private: Blob
    parent_public: Blob
    creation_data: Blob
    creation_hash: Blob
    creation_ticket: Blob


class SealedSeed(Record, frozen=True, kw_only=True):
    """A secret sealed beside H, under the same parent and policy."""

    public: Blob
    private: Blob


class RetainedShare(Record, frozen=True, kw_only=True):
    """One enroller's share of a kept key, which opens in states he authorised by one of ``keys``.

    ``keys`` are DER SPKIs on P-256, in the order its policy has them.
    """

    principal: Name
    keys: Annotated[tuple[Blob, ...], msgspec.Meta(min_length=1, max_length=16)]
    public: Blob
    private: Blob


class RetainedUpdates(Record, frozen=True, kw_only=True):
    """What lets a kept key follow a line of golden sets: shares, any ``needed`` of which make it.

    ``epoch`` is that of the boot state it was kept in, in which ``epoch_counter`` is the most that
    the NV counter at ``epoch_index`` may stand at; each epoch later it may stand one higher.
    """

    environment: Digest
    name: Name
    epoch: Epoch
    needed: Annotated[int, msgspec.Meta(ge=2, le=MAX_SHARES)]
    epoch_index: U32
    epoch_counter: Count
    shares: Annotated[tuple[RetainedShare, ...], msgspec.Meta(max_length=MAX_SHARES)]

    @property
    def line(self) -> Line:
        """The golden sets it follows."""
        return Line(environment=bytes.fromhex(self.environment), name=self.name, epoch=self.epoch)


class RetainedKey(Record, frozen=True, kw_only=True):
    """A secret sealed in the owner hierarchy for one boot state, in any boot of this TPM.

    ``counter`` is what the NV counter at ``counter_index`` must stand at: when it moves on, the
    sealed object opens nothing more, whoever has a copy of it.  With ``updates`` it is sealed once
    more, in shares for boot states to come.
    """

    public: Blob
    private: Blob
    pcrs: tuple[Annotated[int, msgspec.Meta(ge=0, le=23)], ...]
    pcr_digest: Digest
    counter_index: U32
    counter: Count
    updates: RetainedUpdates | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOfKey:
    """A share that one enroller's authorisations are to open; ``keys`` are his P-256 SPKIs."""

    principal: str
    keys: tuple[bytes, ...]
    share: bytearray = field(repr=False)


class Updating(msgspec.Struct, frozen=True, kw_only=True):
    """How a key is to follow a line of golden sets: by ``needed`` of these shares."""

    line: Line
    needed: int
    shares: tuple[ShareOfKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorisedState:
    """A boot state that one enroller authorised, as the TPM must be shown it.

    ``share`` is the position of his share among `RetainedUpdates.shares`; ``signature`` is DER
    ECDSA-SHA256 by the key ``spki`` over `custody.crypto.tpmretained.authorised_message`.
    """

    share: int
    spki: bytes
    epoch: int
    pcrs: tuple[int, ...]
    pcr_digest: bytes
    signature: bytes


#: Whether a kept key can open at all: its counter moved on, or the TPM was cleared.
Life = Literal["alive", "forgotten", "cleared"]


class RetainedStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What the TPM holds of a kept key; ``oldest`` is the oldest epoch it still opens in."""

    life: Life
    oldest: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicyPlan:
    """All that H's policy must be shown.

    ``officers`` gives the SPKI of every leaf of ``tree``, signed or not; ``signatures`` the DER
    ECDSA-SHA256 signatures over ``00000000 ‖ terms`` of the leaves that did sign.
    """

    tree: Person | Threshold
    officers: Mapping[str, bytes]
    signatures: Mapping[str, bytes] = field(repr=False)
    terms: bytes
    conditions: Conditions
    counter_index: int

    @property
    def auth_policy(self) -> bytes:
        """What H's authPolicy must be for this plan to open it (32 bytes)."""
        return host_policy(self.tree, self.officers, terms=self.terms, conditions=self.conditions)


class HostTpm(Protocol):
    """One host's TPM.

    Every method raises `Unavailable` if the TPM cannot be asked.
    """

    def salted_to(self, ek_spki: bytes) -> HostTpm:
        """Return the same TPM, which must hold this endorsement key (DER SPKI).

        Without it the certificate the TPM itself shows is believed: good enough to ask what is
        public, not to send or receive a secret.  Another key is `Refused` (``tpm.ek``).
        """

    def conversation(self) -> AbstractContextManager[None]:
        """Ask all that this thread asks in the block over one connection.

        That costs less, and nothing else differs.  Nobody else may talk to the TPM meanwhile, where
        nothing shares it out; nor this host under another endorsement key (`salted_to`).
        """

    def ek_certificate(self) -> bytes:
        """Return the DER certificate of the endorsement key."""

    def ek_intermediates(self) -> tuple[bytes, ...]:
        """Return the DER certificates the vendor put beside it, if any."""

    def ak_public(self) -> bytes:
        """Return the attestation key's TPMT_PUBLIC, making the key on first use."""

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Open a credential challenge made for this TPM's EK and AK (part 3 section 12.5).

        A challenge for another EK or AK is `Refused` (``tpm.activate``).
        """

    def quote(self, qualifying: bytes, pcrs: tuple[int, ...]) -> Attested:
        """Quote registers of the SHA-256 bank with the AK."""

    def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        """Read registers of the SHA-256 bank, in the order given."""

    def clock(self) -> Clock:
        """Read clock and boot counts."""

    def counters(self) -> tuple[Counter, ...]:
        """List the counters of the pool that exist."""

    def allocate_counter(self, busy: Collection[int]) -> Counter:
        """Return a counter whose index is not in ``busy``, freshly incremented.

        None left: `Incomplete`, naming the busy indexes.
        """

    def read_counter(self, index: int) -> int:
        """Read a counter."""

    def increment(self, index: int) -> None:
        """Increment a counter: whatever its old value opened is burnt."""

    def certify_counter(self, index: int, qualifying: bytes) -> Attested:
        """Certify with the AK what a counter stands at (TPM2_NV_Certify, part 3 section 31.16)."""

    def create_host_key(
        self, auth_policy: bytes, pcrs: tuple[int, ...], *, curve: Curve | None = None
    ) -> HostKey:
        """Make H under the NULL hierarchy.  Without ``curve``: P-384 if the TPM has it."""

    def certify_creation(self, host_key: HostKey, qualifying: bytes) -> Attested:
        """Certify with the AK that H was made in this TPM."""

    def seal_seed(self, auth_policy: bytes, seed: bytes | bytearray) -> SealedSeed:
        """Seal up to 128 bytes under H's parent and ``auth_policy``."""

    def unseal_seed(self, sealed: SealedSeed, plan: HostPolicyPlan) -> bytearray:
        """Unseal it again: refused as `open_host_key`'s key refuses."""

    def open_host_key(self, host_key: HostKey, plan: HostPolicyPlan) -> ec.EllipticCurvePrivateKey:
        """Return H as a key whose ``exchange`` runs the whole policy in the TPM each time.

        `Refused` by the TPM: ``tpm.quorum`` (a signature), ``tpm.pcr`` (the boot state),
        ``tpm.counter`` (burnt), ``tpm.deadline``, ``tpm.rebooted`` (reset, restart or suspend),
        ``tpm.policy`` (H was made for another policy).  Too few signatures: `Incomplete`.
        """

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the host's TLS key as a key that signs in the TPM, making it on first use."""

    def certify_tls_key(self, qualifying: bytes) -> CertifiedKey:
        """Certify with the AK that the TLS key is in this TPM."""

    def retain(
        self,
        secret: bytes | bytearray,
        *,
        pcrs: tuple[int, ...],
        pcr_digest: bytes,
        index: int,
        updating: Updating | None = None,
    ) -> RetainedKey:
        """Seal up to 128 bytes for a boot state, and for the counter at ``index``, made anew.

        Whatever was kept with that counter before is forgotten.  With ``updating`` its shares are
        sealed too, and states before the newest epoch that `raise_epoch` is told open nothing.
        """

    def unseal_retained(self, key: RetainedKey) -> bytearray:
        """Unseal what `retain` sealed, in the boot state it was sealed for.

        `Refused` by the TPM: ``tpm.pcr`` (another boot state), ``tpm.counter`` (forgotten),
        ``tpm.epoch`` (the state was retired), ``tpm.retained`` (another TPM, or one that was
        cleared).
        """

    def unseal_shares(
        self, key: RetainedKey, states: Sequence[AuthorisedState]
    ) -> tuple[bytearray, ...]:
        """Unseal one share for each of ``states``, which must be the boot state of now.

        `Refused` as `unseal_retained`, and ``tpm.authorisation`` (a signature that is not over this
        state, line and epoch), ``tpm.policy`` (by a key that the share is not for).
        """

    def raise_epoch(self, key: RetainedKey, oldest: int) -> int:
        """Let no state before epoch ``oldest`` of its line open ``key`` any more, for good.

        Returns the oldest epoch that still opens it: it may have been raised before.
        """

    def retained_standing(self, key: RetainedKey) -> RetainedStanding:
        """Read whether a kept key can still open, and from which epoch on."""

    def forget_retained(self, key: RetainedKey) -> int:
        """Move the counter on, after which no copy of ``key`` opens; return its new value."""
