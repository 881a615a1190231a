"""One request as far as the TPM is concerned: officers, a policy, H, and a plan to open it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.quorum import Person, Threshold, leaves
from custody.crypto.signature import public_bytes, sign
from custody.crypto.tpmpolicy import Conditions, host_policy
from custody.formats.evidence import Curve
from custody.keys.hostapi import Counter, HostKey, HostPolicyPlan, HostTpm
from custody.keys.tpm_session import Tpm

Tree = Person | Threshold
PCRS = (0, 2, 4, 7)
NESTED = Threshold(
    k=2,
    of=(
        Threshold(k=2, of=tuple(Person(principal=f"sec{n}") for n in (1, 2, 3))),
        Threshold(k=1, of=tuple(Person(principal=f"lead{n}") for n in (1, 2))),
    ),
)
MANY = Threshold(k=2, of=tuple(Person(principal=f"p{n}") for n in range(5)))
ALL = Threshold(k=2, of=(Person(principal="a"), Person(principal="b")))


@dataclass(frozen=True)
class Asked:
    """A request whose officers have not answered yet."""

    host: HostTpm
    keys: Mapping[str, ec.EllipticCurvePrivateKey]
    counter: Counter
    key: HostKey
    empty: HostPolicyPlan

    def plan(self, signed: Iterable[str]) -> HostPolicyPlan:
        """Return the plan with these leaves' signatures on these terms."""
        given = {leaf: sign(self.keys[leaf], bytes(4) + self.empty.terms) for leaf in signed}
        return replace(self.empty, signatures=given)

    def opens(self, plan: HostPolicyPlan) -> bool:
        """Agree on a key with H under ``plan``; say whether both sides have the same."""
        opened = self.host.open_host_key(self.key, plan)
        ours = ec.generate_private_key(opened.curve)
        shared = opened.exchange(ec.ECDH(), ours.public_key())
        return shared == ours.exchange(ec.ECDH(), opened.public_key())


def ask(
    host: HostTpm,
    tree: Tree,
    *,
    milliseconds: int = 60_000,
    curve: Curve | None = None,
    keys: Mapping[str, ec.EllipticCurvePrivateKey] | None = None,
    busy: tuple[int, ...] = (),
) -> Asked:
    """Fix terms and make H for them, as `custody host request` does."""
    keys = keys or {leaf.path: ec.generate_private_key(ec.SECP256R1()) for leaf in leaves(tree)}
    officers = {path: public_bytes(key.public_key()) for path, key in keys.items()}
    counter = host.allocate_counter(busy)
    clock = host.clock()
    terms = os.urandom(32)
    conditions = Conditions(
        pcrs=PCRS,
        pcr_digest=hashlib.sha256(b"".join(host.pcr_values(PCRS))).digest(),
        nv_name=counter.name,
        counter=counter.value,
        deadline_ms=clock.clock_ms + milliseconds,
        reset_count=clock.reset_count,
        restart_count=clock.restart_count,
    )
    policy = host_policy(tree, officers, terms=terms, conditions=conditions)
    plan = HostPolicyPlan(
        tree=tree,
        officers=officers,
        signatures={},
        terms=terms,
        conditions=conditions,
        counter_index=counter.index,
    )
    key = host.create_host_key(policy, PCRS, curve=curve)
    return Asked(host=host, keys=keys, counter=counter, key=key, empty=plan)


def loaded(tcti: str) -> tuple[int, ...]:
    """List every transient object and session the TPM holds."""
    # An environment's own name for the same TPM, so that connecting flushes nothing.
    with Tpm(tcti.replace("swtpm:", "libtss2-tcti-swtpm.so.0:", 1)).connect("be asked") as link:
        return tuple(
            handle
            for first in (0x80000000, 0x02000000, 0x03000000)
            for handle in link.handles(first)
        )
