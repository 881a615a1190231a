"""A case under judgement: what all its requests share, judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from custody.encoding import Digest
from custody.errors import Malformed
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.logpolicy import LogPolicy
from custody.formats.logstate import SeenLogs
from custody.formats.policy import Policy
from custody.formats.state import EnrolmentMemory
from custody.formats.witnessing import CosignRequest
from custody.rules.logged import links_by
from custody.rules.times import Times, trusted_times
from custody.rules.trust import JudgedChain, judge_chain
from custody.rules.verdicts import passed


@dataclass(slots=True, kw_only=True)
class Auditing:
    """A case, and what an auditor brings: `audit_case`.

    What its requests share is judged once for all: a file with many could cost hours otherwise.
    """

    documents: Documents
    pin: Digest
    at: datetime | None
    retired: Sequence[EnrolmentMemory]
    seen: SeenLogs | None
    tsa_roots: Sequence[bytes]
    _chains: dict[Digest, JudgedChain] = field(default_factory=dict)
    _times: dict[tuple[str, ...], Times] = field(default_factory=dict)
    _links: dict[tuple[str, ...], tuple[CosignRequest, ...]] = field(default_factory=dict)

    def chain_to(self, named: Statement[Policy]) -> JudgedChain:
        """Judge the policies up to one, as of the moment at which that was issued."""
        if named.digest not in self._chains:
            version = named.predicate.version
            upto = [
                policy
                for policy in self.documents.policies
                if policy.predicate.version < version or policy.digest == named.digest
            ]
            issued = named.predicate.issued_at
            self._chains[named.digest] = judge_chain(upto, pin=self.pin, floor=0, now=issued)
        return self._chains[named.digest]

    def followed(self, named: Statement[Policy] | None) -> Statement[Policy] | None:
        """Return a policy only if it follows from the pin: else what it says counts for nothing."""
        if named is None:
            return None
        chain = self.chain_to(named)
        ends_there = bool(chain.statements) and chain.statements[-1].digest == named.digest
        return named if ends_there and passed(chain.verdicts) else None

    def times_by(self, followed: Statement[Policy] | None) -> Times:
        """Find who vouches for which times, by the witnesses of a policy that was judged."""
        known = (followed and followed.predicate.logged) or ()
        if known not in self._times:
            logs = _log_policy(followed)
            self._times[known] = trusted_times(self.documents, logs=logs, tsa_roots=self.tsa_roots)
        return self._times[known]

    def links_by(self, policy: Policy) -> tuple[CosignRequest, ...]:
        """Return the consistency proofs of the log that a trusted policy names."""
        lines, log = policy.logged or (), policy.log_policy()
        if lines not in self._links:
            self._links[lines] = () if log is None else links_by(log, self.documents)
        return self._links[lines]


def _log_policy(named: Statement[Policy] | None) -> LogPolicy | None:
    """Return whose witnesses tell the time; a policy that names them badly fails its own check."""
    try:
        return None if named is None else named.predicate.log_policy()
    except Malformed:
        return None
