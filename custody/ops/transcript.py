"""The folder of a ceremony: its script, its transcript, and what its steps wrote.

::

    ceremony.toml       the script, byte for byte as it was read    (formats/ceremony)
    transcript.jsonl    what was done                               (formats/transcript)
    …                   invitation, admissions, certificates, records, the policy
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from custody import __version__
from custody.encoding import Digest, format_time, sha256
from custody.errors import Malformed, Refused
from custody.formats.ceremony import MAX_SCRIPT_BYTES, SCRIPT, TRANSCRIPT, Script, decode_script
from custody.formats.envelope import Signature, signing_bytes
from custody.formats.transcript import (
    MAX_TRANSCRIPT_BYTES,
    CeremonyRecord,
    Event,
    Line,
    Opened,
    decode_transcript,
    encode_transcript,
)
from custody.keys.uri import Pkcs11Uri, parse_key_uri
from custody.ops.folders import read_file, reading
from custody.ops.landing import (
    check_absent,
    disk_errors,
    new_directory,
    replace_file,
    write_new_file,
)
from custody.rules.ceremony import Progress, TokenName, progress_of
from custody.rules.ceremony_script import check_script
from custody.rules.transcript import check_files, judge_so_far
from custody.rules.verdicts import require

#: The largest file that a step writes or reads.
MAX_FILE_BYTES = 16 << 20
#: All of them together, when they are judged.
_MAX_CONTENTS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldScript:
    """A script that can be held, and the digest of its bytes."""

    script: Script
    digest: Digest
    data: bytes = field(repr=False)

    @property
    def tokens(self) -> dict[str, TokenName]:
        """How it names each person's token."""
        return {seat.name: _token_name(seat.token) for seat in self.script.people}


def read_script(data: bytes) -> HeldScript:
    """Read a script and judge it; one that cannot be held is `Refused`."""
    script = decode_script(data)
    for seat in script.people:
        if parse_key_uri(seat.token).pin_source is not None:
            raise Malformed("a script is published, and says nothing of PINs", where=seat.name)
    held = HeldScript(script=script, digest=sha256(data).hex(), data=data)
    require(check_script(script, held.tokens))
    return held


def read_script_file(path: Path) -> HeldScript:
    """Read a script file and judge it."""
    with reading(path):
        return read_script(read_file(path, max_bytes=MAX_SCRIPT_BYTES))


def _token_name(text: str) -> TokenName:
    uri = parse_key_uri(text)
    if not isinstance(uri, Pkcs11Uri):
        return TokenName(label=None, serial=None, manufacturer=None, model=None)
    return TokenName(
        label=uri.token, serial=uri.serial, manufacturer=uri.manufacturer, model=uri.model
    )


def read_transcript(folder: Path) -> tuple[Line, ...]:
    """Read the transcript in a ceremony's folder."""
    path = folder / TRANSCRIPT
    with reading(path):
        return decode_transcript(read_file(path, max_bytes=MAX_TRANSCRIPT_BYTES))


def digests_of(folder: Path, names: Sequence[str]) -> dict[str, Digest]:
    """Return the SHA-256 of those of the named files that are there."""
    return {
        name: sha256(read_file(folder / name, max_bytes=MAX_FILE_BYTES)).hex()
        for name in names
        if (folder / name).is_file()
    }


def contents_of(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read those of the named files that are there; more than 64 MiB of them are `Malformed`."""
    contents: dict[str, bytes] = {}
    left = _MAX_CONTENTS_BYTES
    for name in names:
        if (folder / name).is_file():
            contents[name] = read_file(folder / name, max_bytes=min(left, MAX_FILE_BYTES))
            left -= len(contents[name])
    return contents


class Transcript:
    """A transcript that is being written.  Each record is on the disk before the next begins."""

    def __init__(self, held: HeldScript, folder: Path, lines: Sequence[Line]) -> None:
        self.held = held
        self.folder = folder
        self.lines = [*lines]

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return progress_of(self.lines)

    def record(self, event: Event, *, now: datetime) -> CeremonyRecord:
        """Write what would be the next record, for people to sign.

        A clock that went back is `Refused` (``ceremony.clock``).
        """
        last = self.lines[-1].record
        if now < last.at:
            raise Refused(
                "this machine's clock went back since the last record",
                check="ceremony.clock",
                hint=f"the last record is of {format_time(last.at)}: set the clock right; if that"
                " was never the time, begin another ceremony",
            )
        return last_record(
            self.held, event, number=last.number + 1, previous=self.lines[-1].digest, now=now
        )

    def append(self, record: CeremonyRecord, signatures: Sequence[Signature]) -> None:
        """Add a record."""
        self._write([*self.lines, _line(record, signatures)])

    def sign_last(self, signature: Signature) -> None:
        """Add a signature to the last record."""
        last = self.lines[-1]
        self._write([*self.lines[:-1], _line(last.record, [*last.signatures, signature])])

    def _write(self, lines: Sequence[Line]) -> None:
        data = encode_transcript(lines)
        # What is written is what any reader takes: limits are checked here, not by an auditor.
        decode_transcript(data)
        replace_file(self.folder / TRANSCRIPT, data, mode=0o644)
        self.lines = [*lines]


def last_record(
    held: HeldScript, event: Event, *, number: int, previous: Digest, now: datetime
) -> CeremonyRecord:
    """Write a record; one that no reader would take is `Malformed`."""
    record = CeremonyRecord(
        environment=held.script.environment,
        script=held.digest,
        number=number,
        previous=previous,
        at=now,
        event=event,
    )
    signing_bytes(record)
    return record


def _line(record: CeremonyRecord, signatures: Sequence[Signature]) -> Line:
    return Line(record=record, signatures=tuple(sorted(signatures, key=lambda s: s.keyid)))


def begin(held: HeldScript, folder: Path, *, now: datetime) -> None:
    """Make a ceremony's folder, with its script and its first record."""
    opened = Opened(
        title=held.script.title,
        people=tuple(seat.name for seat in held.script.people),
        program=f"custody {__version__}",
    )
    record = last_record(held, opened, number=0, previous=held.digest, now=now)
    with new_directory(folder, mode=0o755) as made:
        write_new_file(made / SCRIPT, held.data)
        write_new_file(made / TRANSCRIPT, encode_transcript([_line(record, [])]))


@contextmanager
def going_on(held: HeldScript, folder: Path) -> Iterator[Transcript]:
    """Give a ceremony's transcript to go on with, after all in it was checked again.

    `Refused`: another script's folder, a transcript that was changed, a file that is not what a
    step wrote; ``ceremony.busy`` where somebody else is at it.
    """
    if not (folder / TRANSCRIPT).is_file():
        check_absent(folder)
    with _alone(folder):
        lines = read_transcript(folder)
        require(judge_so_far(held.script, held.digest, lines, held.tokens))
        progress = progress_of(lines)
        require(check_files(progress, digests_of(folder, tuple(progress.files))))
        yield Transcript(held, folder, lines)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with disk_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                "this ceremony is being held by another process",
                check="ceremony.busy",
                where=str(folder),
            ) from error
        yield
    finally:
        os.close(descriptor)
