"""A calculator for TPM 2.0 policy digests that needs no TPM.

Sources: TPM 2.0 part 1 section 19.7 (enhanced authorisation) and part 3 section 23 (the policy
commands).  Digests are SHA-256 throughout.  A verifier recomputes here what the host's TPM
enforces; the host takes from `steps` what its TPM must be told, so the two cannot drift apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.quorum import Node, Person, Threshold, minimal_sets, missing, satisfied
from custody.crypto.signature import load_ec_public
from custody.encoding import sha256
from custody.errors import Incomplete, Refused

#: The digest a policy session starts from.
EMPTY = bytes(32)
#: PolicyOR takes two to eight branches (part 3, TPM2_PolicyOR).
OR_WIDTH = 8

_CC_POLICY_NV = 0x0149
_CC_POLICY_SIGNED = 0x0160
_CC_POLICY_AUTHORIZE = 0x016A
_CC_POLICY_COUNTER_TIMER = 0x016D
_CC_POLICY_OR = 0x0171
_CC_POLICY_PCR = 0x017F

_ALG_SHA256 = 0x000B
_ALG_NULL = 0x0010
_ALG_ECC = 0x0023
_CURVE_P256 = 0x0003
_ATTRIBUTES_OFFICER = 0x0004_0040  # sign | userWithAuth

#: Comparison operators (TPM_EO, part 2 section 6.8).  Only the unsigned ones: the meaning of the
#: signed comparisons has changed between TPM implementations.
EO_EQ = 0x0000
EO_UNSIGNED_LT = 0x0005
EO_UNSIGNED_LE = 0x0009

#: Offsets into TPMS_TIME_INFO (part 2 section 10.11.6), which PolicyCounterTimer compares.
OFFSET_CLOCK = 8
OFFSET_RESET_COUNT = 16


class Signed(msgspec.Struct, frozen=True):
    """Run PolicySigned with the signature of the officer at ``leaf``."""

    leaf: str


class Or(msgspec.Struct, frozen=True):
    """Run PolicyOR over ``branches`` (two to eight digests)."""

    branches: tuple[bytes, ...]


Step = Signed | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a host key's policy demands beside the quorum."""

    pcrs: tuple[int, ...]
    pcr_digest: bytes
    nv_name: bytes
    counter: int
    deadline_ms: int
    reset_count: int
    restart_count: int

    @property
    def counter_operand(self) -> bytes:
        """The counter's value as PolicyNV compares it (8 bytes)."""
        return self.counter.to_bytes(8, "big")

    @property
    def deadline_operand(self) -> bytes:
        """The deadline as PolicyCounterTimer compares it (8 bytes, TPM clock milliseconds)."""
        return self.deadline_ms.to_bytes(8, "big")

    @property
    def boot_operand(self) -> bytes:
        """Both boot counts as PolicyCounterTimer compares them (8 bytes).

        resetCount alone would let a key outlive a shutdown and restart.
        """
        return self.reset_count.to_bytes(4, "big") + self.restart_count.to_bytes(4, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def policy_signed(digest: bytes, key_name: bytes, ref: bytes) -> bytes:
    """PolicySigned by the key of that Name, with policyRef ``ref`` (part 3 section 23.3)."""
    return sha256(sha256(digest, _u32(_CC_POLICY_SIGNED), key_name), ref)


def policy_or(branches: Sequence[bytes]) -> bytes:
    """PolicyOR over two to eight branches (part 3 section 23.6).  What went before is replaced."""
    if not 2 <= len(branches) <= OR_WIDTH:
        raise ValueError("PolicyOR takes two to eight branches")
    return sha256(EMPTY, _u32(_CC_POLICY_OR), *branches)


def policy_pcr(digest: bytes, pcrs: Sequence[int], pcr_digest: bytes) -> bytes:
    """PolicyPCR over registers of the SHA-256 bank (part 3 section 23.7)."""
    return sha256(digest, _u32(_CC_POLICY_PCR), pcr_selection(pcrs), pcr_digest)


def policy_nv(
    digest: bytes, nv_name: bytes, *, operand: bytes, offset: int, operation: int
) -> bytes:
    """PolicyNV comparing an NV index with ``operand`` (part 3 section 23.9)."""
    arguments = sha256(operand, offset.to_bytes(2, "big"), operation.to_bytes(2, "big"))
    return sha256(digest, _u32(_CC_POLICY_NV), arguments, nv_name)


def policy_authorize(key_name: bytes, ref: bytes) -> bytes:
    """PolicyAuthorize by the key of that Name (part 3 section 23.16).

    There is no digest to begin from: whatever was shown before is *replaced*, so that two of them
    in a row demand no more than the last.
    """
    return sha256(sha256(EMPTY, _u32(_CC_POLICY_AUTHORIZE), key_name), ref)


def policy_counter_timer(digest: bytes, *, operand: bytes, offset: int, operation: int) -> bytes:
    """PolicyCounterTimer comparing TPMS_TIME_INFO with ``operand`` (part 3 section 23.10)."""
    arguments = sha256(operand, offset.to_bytes(2, "big"), operation.to_bytes(2, "big"))
    return sha256(digest, _u32(_CC_POLICY_COUNTER_TIMER), arguments)


def pcr_selection(pcrs: Sequence[int]) -> bytes:
    """Return a TPML_PCR_SELECTION of these registers of the SHA-256 bank (10 bytes)."""
    bits = 0
    for pcr in pcrs:
        if not 0 <= pcr <= 23:
            raise ValueError("a PCR is numbered 0 to 23")
        bits |= 1 << pcr
    return _u32(1) + _ALG_SHA256.to_bytes(2, "big") + b"\x03" + bits.to_bytes(3, "little")


def officer_key_public(spki: bytes) -> bytes:
    """Return the TPMT_PUBLIC under which an officer's P-256 key is loaded for PolicySigned.

    One template for every officer, because the key's Name, and so the policy, depends on it.
    """
    key = load_ec_public(spki)
    if not isinstance(key.curve, ec.SECP256R1):
        raise Refused("an officer's signing key is not on P-256", check="policy.officer-key")
    numbers = key.public_numbers()
    fields = (_ALG_ECC, _ALG_SHA256)
    head = b"".join(field.to_bytes(2, "big") for field in fields) + _u32(_ATTRIBUTES_OFFICER)
    no_policy = bytes(2)
    # symmetric, scheme, curve, kdf (part 2, TPMS_ECC_PARMS)
    parameters = (_ALG_NULL, _ALG_NULL, _CURVE_P256, _ALG_NULL)
    body = b"".join(field.to_bytes(2, "big") for field in parameters)
    point = b"".join(b"\x00\x20" + value.to_bytes(32, "big") for value in (numbers.x, numbers.y))
    return head + no_policy + body + point


def officer_key_name(spki: bytes) -> bytes:
    """Return the Name of an officer's key as PolicySigned sees it (34 bytes)."""
    return _ALG_SHA256.to_bytes(2, "big") + sha256(officer_key_public(spki))


def quorum_policy(tree: Node, names: Mapping[str, bytes], *, ref: bytes) -> bytes:
    """Return the digest of the quorum alone: every leaf a PolicySigned over ``ref``.

    ``names`` gives the key Name of each leaf path.  A k-of-n node is PolicyOR over its k-subsets
    in lexicographic order of child index; a subset is its children one after the other.
    Raises `Refused` for a tree nobody can satisfy or with more minimal sets than are allowed.
    """
    _check_cost(tree)
    return _Fold(names, ref).digest(tree, "", EMPTY)


def host_policy(
    tree: Node, officers: Mapping[str, bytes], *, terms: bytes, conditions: Conditions
) -> bytes:
    """Return H's authPolicy (32 bytes).  ``officers`` gives each leaf's SPKI.

    Quorum, PolicyPCR, PolicyNV(counter ==), PolicyCounterTimer(clock <),
    PolicyCounterTimer(resetCount ‖ restartCount ==), in this order: protocol section 5.
    """
    digest = quorum_policy(tree, key_names(officers), ref=terms)
    digest = policy_pcr(digest, conditions.pcrs, conditions.pcr_digest)
    digest = policy_nv(
        digest, conditions.nv_name, operand=conditions.counter_operand, offset=0, operation=EO_EQ
    )
    digest = policy_counter_timer(
        digest,
        operand=conditions.deadline_operand,
        offset=OFFSET_CLOCK,
        operation=EO_UNSIGNED_LT,
    )
    return policy_counter_timer(
        digest,
        operand=conditions.boot_operand,
        offset=OFFSET_RESET_COUNT,
        operation=EO_EQ,
    )


def join(branches: Sequence[bytes]) -> bytes:
    """Return the digest of any number of branches: PolicyOR in chunks of eight, nested."""
    level = branches
    while len(level) > 1:
        level = [_join_chunk(chunk) for chunk in _chunks(level)]
    return level[0]


def join_steps(branches: Sequence[bytes], position: int) -> tuple[Or, ...]:
    """Return the PolicyOR commands that lead from the branch at ``position`` to `join`."""
    done: list[Or] = []
    level = branches
    while len(level) > 1:
        chunk = _chunks(level)[position // OR_WIDTH]
        if len(chunk) > 1:
            done.append(Or(tuple(chunk)))
        level = [_join_chunk(each) for each in _chunks(level)]
        position //= OR_WIDTH
    return tuple(done)


def key_names(officers: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the key Name of every leaf, from its SPKI."""
    return {path: officer_key_name(spki) for path, spki in officers.items()}


def steps(
    tree: Node, have: Collection[str], *, names: Mapping[str, bytes], ref: bytes
) -> tuple[Step, ...]:
    """Return the commands that satisfy the quorum with the leaves in ``have``, in order.

    Of several sets that would do, each node takes its first children that are satisfied.
    Raises `Incomplete` naming who could still sign when ``have`` does not suffice.
    """
    if not satisfied(tree, have):
        lacking = tuple(name for short in missing(tree, have) for name in short.among)
        raise Incomplete("the quorum is not complete", missing=lacking)
    _check_cost(tree)
    done: list[Step] = []
    _Fold(names, ref).run(tree, "", EMPTY, have=frozenset(have), done=done)
    return tuple(done)


def _check_cost(tree: Node) -> None:
    # It refuses a tree with too many of them, or one that cannot be satisfied, before anything is
    # computed: a stranger's tree could otherwise cost C(32, 16) hashes.
    minimal_sets(tree)


class _Fold(msgspec.Struct, frozen=True):
    names: Mapping[str, bytes]
    ref: bytes

    def digest(self, node: Node, path: str, start: bytes) -> bytes:
        """Return the policy digest after ``node``, begun at ``start``."""
        if isinstance(node, Person):
            return policy_signed(start, self.names[path], self.ref)
        return join(self._branches(node, path, start))

    def run(
        self, node: Node, path: str, start: bytes, *, have: frozenset[str], done: list[Step]
    ) -> bytes:
        """Append the steps through ``node`` to ``done``; return the session's digest after them."""
        if isinstance(node, Person):
            done.append(Signed(path))
            return policy_signed(start, self.names[path], self.ref)
        chosen = tuple(
            index for index, child in enumerate(node.of) if _holds(child, _below(path, index), have)
        )[: node.k]
        digest = start
        for index in chosen:
            digest = self.run(node.of[index], _below(path, index), digest, have=have, done=done)
        branches = self._branches(node, path, start)
        done += join_steps(branches, list(_subsets(node)).index(chosen))
        return join(branches)

    def _branches(self, node: Threshold, path: str, start: bytes) -> list[bytes]:
        branches = []
        for subset in _subsets(node):
            digest = start
            for index in subset:
                digest = self.digest(node.of[index], _below(path, index), digest)
            branches.append(digest)
        return branches


def _below(path: str, index: int) -> str:
    return f"{path}/{index}" if path else str(index)


def _subsets(node: Threshold) -> Iterator[tuple[int, ...]]:
    return itertools.combinations(range(len(node.of)), node.k)


def _chunks(level: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [level[start : start + OR_WIDTH] for start in range(0, len(level), OR_WIDTH)]


def _join_chunk(chunk: Sequence[bytes]) -> bytes:
    # A digest left over alone passes up unchanged: PolicyOR needs two branches.
    return policy_or(chunk) if len(chunk) > 1 else chunk[0]


def _holds(node: Node, path: str, have: frozenset[str]) -> bool:
    if isinstance(node, Person):
        return path in have
    held = sum(_holds(child, _below(path, index), have) for index, child in enumerate(node.of))
    return held >= node.k
