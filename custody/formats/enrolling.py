"""What an enroller's server says besides challenges and records.  Format: enrolling.md."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.encoding import Digest, Record, Text

CheckId = Annotated[str, msgspec.Meta(pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}\Z")]


class Refusal(Record, frozen=True):
    """Why a server did not do what it was asked."""

    kind: Literal["custody/enrolment-refusal/v1"]
    check: CheckId
    reason: Text
    hint: Text | None


class Waiting(Record, frozen=True):
    """The answer was right; the enroller has not signed yet."""

    kind: Literal["custody/enrolment-waiting/v1"]
    request: Digest
