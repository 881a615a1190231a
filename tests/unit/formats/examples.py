"""The worked examples of the format documents: blocks of JSON tagged ``example=NAME``.

NAME is a file in tests/vectors/formats.  A block shows the whole of it, laid out for reading: for a
statement (``.dsse``) the payload of its envelope, or the envelope itself where NAME ends in
``.dsse#envelope``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from custody.encoding import Record
from custody.formats.enrolment import Answer, Challenge, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Predicate
from custody.formats.goldenset import GoldenSet
from custody.formats.measurement import Measurement
from custody.formats.policy import Policy
from custody.formats.recovery import BreakGlass, RecoveryRecord
from custody.formats.retirement import Retirement
from custody.formats.state import Identity, Memory

VECTORS = Path(__file__).parents[2] / "vectors" / "formats"
DOCUMENTS = Path(__file__).parents[3] / "custody" / "formats"
BLOCK = re.compile(r"^```json example=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WIDTH = 96

STATEMENTS: dict[str, type[Predicate]] = {
    "policy.dsse": Policy,
    "enrolment.dsse": EnrolmentRecord,
    "retirement.dsse": Retirement,
    "golden.dsse": GoldenSet,
    "golden-events.dsse": GoldenSet,
    "recovery-record.dsse": RecoveryRecord,
    "break-glass.dsse": BreakGlass,
}
RECORDS: dict[str, type[Record]] = {
    "enrolment-request.json": EnrolmentRequest,
    "challenge.json": Challenge,
    "answer.json": Answer,
    "measurement.json": Measurement,
    "identity.json": Identity,
    "memory.json": Memory,
}


@dataclass(frozen=True)
class Example:
    """One block of one document."""

    document: Path
    name: str
    text: str

    @property
    def compact(self) -> bytes:
        """The block without the layout: what the file holds."""
        value = json.loads(self.text)
        written = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return written.encode()


def examples() -> Iterator[Example]:
    """Find every tagged block."""
    for document in sorted(DOCUMENTS.glob("*.md")):
        for name, text in BLOCK.findall(document.read_text()):
            yield Example(document, name, text)


def lay_out(value: object, indent: int = 0) -> str:
    """Write a JSON value for reading: on one line where it fits, else one line for each part."""
    flat = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(flat) + indent <= _WIDTH or not isinstance(value, dict | list):
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [
            f"{inner}{json.dumps(k)}: {lay_out(v, indent + 2)}" for k, v in sorted(value.items())
        ]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    parts = [f"{inner}{lay_out(item, indent + 2)}" for item in value]
    return "[\n" + ",\n".join(parts) + "\n" + " " * indent + "]"
