"""What an officer answered, kept in his home.

Only the answers somebody brings are judged, and whoever carries them can leave some out.  His own
he must not forget: who denied a request would otherwise approve it by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.keyrequest import Consent
from custody.ops.folders import read_statement_file
from custody.ops.home import Home
from custody.ops.landing import replace_file

A = TypeVar("A", Approval, Consent, Denial)

_FOLDER = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer and its file."""

    request: Statement[Asking]
    data: bytes


def keep_answers(
    home: Home,
    kind: type[A],
    requests: Sequence[Statement[Asking]],
    answers: Sequence[bytes],
) -> tuple[Answered, ...]:
    """Keep an answer of one kind to each of ``requests``, and return them."""
    folder = home.folder(_FOLDER)
    given = []
    for request, data in zip(requests, answers, strict=True):
        replace_file(folder / _name(kind, request), data)
        given.append(Answered(request=request, data=data))
    return tuple(given)


def own_answers(home: Home, kind: type[A], request: Statement[Asking]) -> tuple[Statement[A], ...]:
    """Return this home's answers of one kind to the terms of a request."""
    path = home.path / _FOLDER / _name(kind, request)
    return (read_statement_file(kind, path),) if path.exists() else ()


def _name(kind: type[A], request: Statement[Asking]) -> str:
    # By terms, as a denial counts: two requests may have one set of them.
    terms = request.predicate.terms.digest().hex()
    return f"{terms}.{kind.__name__.lower()}.dsse"
