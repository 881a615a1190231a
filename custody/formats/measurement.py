"""Measurements: the registers of one machine, as it reads them.  Format: goldenset.md.

A measurement is signed by nobody; it becomes worth something when enrollers who know how the
machine was booted sign a golden set made from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.encoding import Moment, Record
from custody.formats.eventlog import MAX_LOG_BYTES
from custody.formats.goldenset import PcrValue


class Measurement(Record, frozen=True, kw_only=True):
    """What a machine's TPM held in some registers of its SHA-256 bank.

    ``event_log`` is the log of the boot that made them so, empty where there is none.
    """

    kind: Literal["custody/measurement/v1"]
    bank: Literal["sha256"]
    pcrs: Annotated[tuple[PcrValue, ...], msgspec.Meta(min_length=1, max_length=24)]
    event_log: Annotated[bytes, msgspec.Meta(max_length=MAX_LOG_BYTES)]
    measured_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = [value.pcr for value in self.pcrs]
        if numbers != sorted(set(numbers)):
            raise ValueError("pcrs: not in ascending order, each once")
