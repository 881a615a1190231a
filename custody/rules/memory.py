"""What is remembered of hosts, as a pure function of what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.request import Request
from custody.formats.state import HostMemory, KeyMemory, Memory
from custody.rules.trust import TrustedPolicy, count_signers


def oldest_epochs(
    golden_sets: Iterable[Statement[GoldenSet]], *, trusted: TrustedPolicy, now: datetime
) -> Mapping[str, int]:
    """Return, by name, the oldest epoch that these golden sets leave in use.

    Only sets that the threshold signed count: anyone else could retire what hosts run.  A set
    issued later than ``now`` says nothing about it, so an auditor's answer stands.
    """
    policy = trusted.policy
    found: dict[str, int] = {}
    for golden in golden_sets:
        said = golden.predicate
        # Before the signatures are verified, so that old sets cost nothing.
        if (
            said.environment != trusted.genesis
            or said.issued_at > now
            or said.oldest <= found.get(said.name, 1)
        ):
            continue
        needed = policy.thresholds.golden
        if not count_signers(golden.envelope, policy, role="enroller", needed=needed).missing:
            found[said.name] = said.oldest
    return found


def remember_request(memory: Memory, statement: Statement[Request]) -> Memory:
    """Remember a request that was judged good: its host's boot count, and its key H.

    A boot count only grows, and a key H is good for one request only.
    """
    # Imported here because who only seals remembers no keys of TPMs.
    from custody.formats.evidence import name  # noqa: PLC0415

    request = statement.predicate
    known = memory.host(request.terms.ek_spki)
    key = KeyMemory(name=name(request.key.public).hex(), request=statement.digest)
    # Keys of earlier boots are dead; there is no need to carry them for ever.
    fresh = known is None or known.reset_count < request.terms.reset_count
    keys = () if known is None or fresh else known.keys
    host = HostMemory(
        ek_spki=request.terms.ek_spki,
        reset_count=max(request.terms.reset_count, known.reset_count if known else 0),
        keys=keys if key in keys else (*keys, key),
    )
    others = tuple(h for h in memory.hosts if h.ek_spki != host.ek_spki)
    hosts = tuple(sorted((*others, host), key=lambda h: h.ek_spki))
    return msgspec.structs.replace(memory, hosts=hosts)
