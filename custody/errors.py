"""The four things that can go wrong, one for each thing a caller can do about it.

::

    CustodyError
    ├── Malformed     the bytes do not follow their format document     mend them
    ├── Refused       a check was made and its answer is no             stop
    ├── Incomplete    nothing is wrong, something is still missing      wait
    └── Unavailable   the question could not be put                     try again

No error ever holds a PIN, a key, a share or plaintext.
"""

from __future__ import annotations

from collections.abc import Sequence


class CustodyError(Exception):
    """The root of the tree.  Never raised itself.

    ``reason`` is one lower-case sentence without a full stop, ``where`` names the file or
    device the reason is about, and ``hint`` says what to do next.
    """

    def __init__(self, reason: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


class Malformed(CustodyError):
    """The bytes do not follow their format document."""


class Refused(CustodyError):
    """A check was made and its answer is no.  ``check`` is its stable id."""

    def __init__(
        self, reason: str, *, check: str, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(reason, where=where, hint=hint)
        self.check = check


class Incomplete(CustodyError):
    """Nothing is wrong; ``missing`` names what is still to come."""

    def __init__(
        self,
        reason: str,
        *,
        missing: Sequence[str] = (),
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason, where=where, hint=hint)
        self.missing = tuple(missing)


class Unavailable(CustodyError):
    """The question could not be put: no token, TPM, disk space, network or log."""
