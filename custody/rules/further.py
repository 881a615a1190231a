"""Evidence of other kinds than a TPM's: what a graphics processor or a confidential VM says.

Nothing here knows what is in it.  A verifier for a type is given by whoever judges; without one,
what the policy demands is refused, and what it does not is said to be not judged.  That the bytes
are this host's is shown by the AK's quote, which is over the statement they are part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from custody.formats.envelope import Statement
from custody.formats.policy import FurtherType
from custody.formats.request import Request
from custody.rules.verdicts import Ledger, Verdict


class FurtherVerifier(Protocol):
    """Judges further evidence of one type."""

    def verify(self, evidence: bytes, *, request: Statement[Request], now: datetime) -> str:
        """Say in words what the evidence shows; raise `Refused` or `Malformed` if it is not good.

        ``evidence`` is from the host and at most 256 KiB.  That it is fresh is for the verifier: a
        host has no nonce to ask for it by, because the request it is part of is none yet.
        """


def check_further(
    statement: Statement[Request],
    *,
    demanded: Sequence[FurtherType],
    verifiers: Mapping[FurtherType, FurtherVerifier],
    now: datetime,
) -> tuple[Verdict, ...]:
    """Judge the further evidence of a request.  ``demanded`` are the types the policy asks for."""
    ledger = Ledger(subject=f"further evidence of {statement.predicate.host}")
    held = {further.type: further.evidence for further in statement.predicate.further}
    absent = [kind for kind in demanded if kind not in held]
    ledger.add(
        "further.demanded",
        not absent,
        "all that the policy demands is here" if demanded else "the policy demands none",
        otherwise=f"the policy demands evidence that is not here: {', '.join(absent)}",
    )
    for kind, evidence in held.items():
        verifier = verifiers.get(kind)
        if verifier is not None:
            with ledger.failing("further.evidence"):
                words = verifier.verify(evidence, request=statement, now=now)
                ledger.add("further.evidence", True, f"{kind}: {words}")
        elif kind in demanded:
            # To take what nobody here can read for good would make the demand a matter of form.
            ledger.add(
                "further.verifier",
                False,
                f"the policy demands {kind}, and nothing here can judge it",
            )
        else:
            ledger.skip("further.verifier", f"{kind}: not judged")
    return ledger.done()
