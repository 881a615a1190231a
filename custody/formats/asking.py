"""What every request is, whatever the host shows of itself.

Two kinds exist: a TPM's (request.md) and, where a policy takes it, one by a key in an HSM
(keyrequest.md).  What is made of them (approvals, a log's word, a verdict) is the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Protocol

from custody.encoding import Digest
from custody.formats.envelope import Predicate
from custody.formats.policy import HpkeSuite, Mode
from custody.formats.receipt import BadShare


class AskedTerms(Protocol):
    """What is asked for.  Officers sign its digest (32 bytes)."""

    @property
    def manifest(self) -> Digest:
        """Statement digest of the manifest asked for."""
        ...

    @property
    def policy(self) -> Digest:
        """Statement digest of the policy in force."""
        ...

    @property
    def checkpoint(self) -> Digest | None:
        """Digest of the text of the checkpoint that the request carries."""
        ...

    @property
    def mode(self) -> Mode:
        """How long the key may be kept."""
        ...

    @property
    def keeps_key(self) -> bool:
        """Whether they let the host keep the content key over restarts."""
        ...

    def digest(self) -> bytes:
        """Return the 32 bytes that officers and logs sign."""
        ...


class Asking(Predicate, Protocol):
    """A request of either kind."""

    #: Whether officers open their shares only when a quorum has consented beforehand: nothing but
    #: their programs would otherwise keep shares of several requests apart.
    CONSENT_FIRST: ClassVar[bool]
    #: Whether the host can prove that its key opens nothing more.
    BURNS: ClassVar[bool]

    @property
    def terms(self) -> AskedTerms:
        """What is asked for."""
        ...

    @property
    def environment(self) -> Digest:
        """Digest of the environment's first policy."""
        ...

    @property
    def host(self) -> str:
        """Who asks."""
        ...

    @property
    def suite(self) -> HpkeSuite:
        """How shares are sealed to the host's key."""
        ...

    @property
    def recipient(self) -> bytes:
        """The key (DER SPKI) that shares are sealed to."""
        ...

    @property
    def mlkem(self) -> bytes | None:
        """Its ML-KEM-1024 half, if the suite has one."""
        ...

    @property
    def ends_at(self) -> datetime | None:
        """From when on nobody answers or opens it; None where only its TPM's clock tells."""
        ...

    @property
    def requested_at(self) -> datetime:
        """When, by the host's clock."""
        ...

    @property
    def checkpoint(self) -> bytes | None:
        """The last checkpoint that the host saw of the policy's log."""
        ...


class Ending(Predicate, Protocol):
    """A host's word on how a request ended, attested or signed."""

    @property
    def request(self) -> Digest:
        """The request that came to its end."""
        ...

    @property
    def outcome(self) -> str:
        """``opened``, ``retained`` or ``failed``."""
        ...

    @property
    def reason(self) -> str:
        """Why, in words."""
        ...

    @property
    def approvals(self) -> tuple[Digest, ...]:
        """The approvals it used."""
        ...

    @property
    def bad_shares(self) -> tuple[BadShare, ...]:
        """Those whose share did not match its commitment."""
        ...

    @property
    def finished_at(self) -> datetime:
        """When, by the host's clock."""
        ...
