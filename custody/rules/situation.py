"""What every judgement needs: the policy in force, the files around it, memory and the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from custody.encoding import KeyId
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.policy import FurtherType
from custody.formats.state import Memory
from custody.formats.witnessing import CosignRequest
from custody.rules.further import FurtherVerifier
from custody.rules.trust import TrustedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A judge's standing: nothing in ``documents`` is believed for being there.

    ``seen`` is the newest checkpoint he has seen of the log that the policy names.
    ``links`` are the consistency proofs by that log, where whoever judges many requests has looked
    them out once.  ``verifiers`` are what he has to judge further evidence with, by its type.
    """

    trusted: TrustedPolicy
    documents: Documents
    memory: Memory
    now: datetime
    seen: SignedCheckpoint | None = None
    links: tuple[CosignRequest, ...] | None = None
    verifiers: Mapping[FurtherType, FurtherVerifier] = field(default_factory=dict)

    @property
    def crl_floor(self) -> Mapping[KeyId, int]:
        """The newest revocation list number seen of each authority."""
        return {crl.authority: crl.number for crl in self.memory.crls}
