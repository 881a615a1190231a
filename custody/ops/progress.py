"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

#: Called with a phase (one word), the bytes done and the bytes in all, always from the thread
#: that started the work, about ten times a second and once at the end.  What it raises stops the
#: work, which then cleans up as after any other error.
Progress = Callable[[str, int, int], None]


def silent(phase: str, done_bytes: int, total_bytes: int) -> None:
    """Say nothing."""
