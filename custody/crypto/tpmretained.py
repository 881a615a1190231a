"""The policies of what a TPM keeps for restarts, worked out without a TPM.

Protocol: docs/protocol.md section 6, "Sealed".  Sources: TPM 2.0 part 3 section 23 (PolicyAuthorize
is 23.16).  A key of mode ``sealed-updatable`` is kept twice: whole, for the boot state it was
released to, and in shares, one for each enroller, that open in states he authorised later.

PolicyAuthorize replaces the digest of all that was shown before it.  A chain of two therefore obeys
its last key alone, and no arrangement of PolicyOR makes k of n of it.  So k of n is not in a policy
here: it takes k shares to make the key, and each share has one enroller's policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from custody.crypto.bind import bind
from custody.crypto.tpmpolicy import (
    EMPTY,
    EO_EQ,
    EO_UNSIGNED_LE,
    Or,
    join,
    join_steps,
    officer_key_name,
    policy_authorize,
    policy_nv,
    policy_pcr,
)

#: For how many epochs, from the one it was kept at, a key can be authorised: 64 branches, which
#: PolicyOR joins in two levels.
EPOCHS = 64
#: The most enrollers who can have a share.
MAX_SHARES = 32

_COUNTER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The golden sets of one name in one environment, from the epoch a key was kept at.

    ``environment`` is the digest of its first policy (32 bytes).
    """

    environment: bytes
    name: str
    epoch: int

    def covers(self, epoch: int) -> bool:
        """Say whether a kept key has a branch for that epoch."""
        return self.epoch <= epoch < self.epoch + EPOCHS

    def ref(self, epoch: int) -> bytes:
        """Return the policyRef of what is authorised for an epoch of this line (32 bytes)."""
        return state_ref(self.environment, self.name, epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCounters:
    """The counters of a kept key, and where they stood when it was sealed.

    ``own`` is moved to forget the key; ``epoch`` is raised when a newer golden set retires states.
    """

    own_name: bytes
    own: int
    epoch_name: bytes
    epoch: int


def state_ref(environment: bytes, name: str, epoch: int) -> bytes:
    """Return the policyRef that a boot state is authorised under (32 bytes).

    It names the environment, the line and the epoch, and by its tag the purpose, so that a
    signature for one of them is none for another.
    """
    return bind("kept-state", environment, name.encode(), epoch.to_bytes(8, "big"))


def authorised_message(
    pcrs: Sequence[int], pcr_digest: bytes, *, environment: bytes, name: str, epoch: int
) -> bytes:
    """Return what an enroller signs to authorise a boot state: approvedPolicy ‖ policyRef.

    64 bytes, whose SHA-256 is the aHash of TPM2_PolicyAuthorize.
    """
    return state_policy(pcrs, pcr_digest) + state_ref(environment, name, epoch)


def state_policy(pcrs: Sequence[int], pcr_digest: bytes) -> bytes:
    """Return the approvedPolicy of a boot state: PolicyPCR alone (32 bytes)."""
    return policy_pcr(EMPTY, pcrs, pcr_digest)


def retained_policy(
    pcrs: Sequence[int], pcr_digest: bytes, *, nv_name: bytes, counter: int
) -> bytes:
    """Return the authPolicy of a content key kept for one boot state (32 bytes).

    PolicyPCR, then PolicyNV(counter ==): mode ``sealed``.
    """
    return _not_forgotten(policy_pcr(EMPTY, pcrs, pcr_digest), nv_name, counter)


def first_state_policy(pcrs: Sequence[int], pcr_digest: bytes, counters: KeptCounters) -> bytes:
    """Return the authPolicy of the whole key in mode ``sealed-updatable`` (32 bytes).

    PolicyPCR, PolicyNV(epoch counter <=), PolicyNV(own counter ==).
    """
    state = _in_epoch(policy_pcr(EMPTY, pcrs, pcr_digest), counters, 0)
    return _not_forgotten(state, counters.own_name, counters.own)


def share_policy(spkis: Sequence[bytes], *, line: Line, counters: KeptCounters) -> bytes:
    """Return the authPolicy of one enroller's share (32 bytes); ``spkis`` are his P-256 keys.

    For each epoch and key: PolicyAuthorize(key, ref of that epoch), PolicyNV(epoch counter <= what
    it may stand at in that epoch); PolicyOR over these; PolicyNV(own counter ==).
    """
    joined = join(_branches(spkis, line, counters))
    return _not_forgotten(joined, counters.own_name, counters.own)


def share_steps(
    spkis: Sequence[bytes], key: bytes, epoch: int, *, line: Line, counters: KeptCounters
) -> tuple[Or, ...]:
    """Return the PolicyOR commands for a state that ``key`` authorised for ``epoch``."""
    if not line.covers(epoch):
        raise ValueError("the kept key has no branch for that epoch")
    position = (epoch - line.epoch) * len(spkis) + list(spkis).index(key)
    return join_steps(_branches(spkis, line, counters), position)


def epoch_operand(counters: KeptCounters, since: int) -> bytes:
    """Return what the epoch counter may at most stand at, ``since`` epochs after the first."""
    return (counters.epoch + since).to_bytes(_COUNTER_BYTES, "big")


def _branches(spkis: Sequence[bytes], line: Line, counters: KeptCounters) -> list[bytes]:
    names = [officer_key_name(spki) for spki in spkis]
    return [
        _in_epoch(policy_authorize(name, line.ref(line.epoch + since)), counters, since)
        for since in range(EPOCHS)
        for name in names
    ]


def _in_epoch(digest: bytes, counters: KeptCounters, since: int) -> bytes:
    # A TPM never lets a counter go back, but no counter begins at zero, or at the same number in
    # two TPMs.  What is signed for every host can therefore not hold the number: it is here.
    return policy_nv(
        digest,
        counters.epoch_name,
        operand=epoch_operand(counters, since),
        offset=0,
        operation=EO_UNSIGNED_LE,
    )


def _not_forgotten(digest: bytes, nv_name: bytes, counter: int) -> bytes:
    # After whatever an enroller may authorise, so that forgetting is nobody else's to undo.
    operand = counter.to_bytes(_COUNTER_BYTES, "big")
    return policy_nv(digest, nv_name, operand=operand, offset=0, operation=EO_EQ)
