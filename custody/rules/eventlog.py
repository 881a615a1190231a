"""Does this event log explain what the TPM quoted, and by which components?

A log is its host's claim, and no digest covers an event's type or its register's order but the
quote: so a log is believed only as far as replaying it gives what was quoted, and only its digests
count.  Pure: the log, the quoted digest and the golden set go in, verdicts come out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from custody.encoding import sha256
from custody.errors import Malformed
from custody.formats.eventlog import (
    ALG_SHA1,
    ALG_SHA256,
    NO_REGISTER,
    PCR_COUNT,
    Event,
    EventLog,
    EventType,
    parse_event_log,
)
from custody.formats.eventwords import SEPARATORS, describe, variable
from custody.formats.goldenset import LOCALITIES, Component, GoldenSet, Locality, PcrEvents
from custody.formats.policy import LogDemand
from custody.rules.verdicts import Ledger, Verdict

_HASHES = {ALG_SHA1: "sha1", ALG_SHA256: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
_LOCALITY = b"StartupLocality\0"
_HCRTM_LOCALITY = 4
_BOOT_PCRS = range(8)
#: What an operating system extends as well, long after the log has ended.
_SYSTEM_PCRS = range(8, 16)
_DYNAMIC_PCRS = range(17, 23)
_EXIT = b"Exit Boot Services Returned with Success"
#: EFI_GLOBAL_VARIABLE (UEFI 2.10), as it lies in memory.
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_MAX_REASONS = 3

#: Types whose digest is of all their data (Platform Firmware Profile section 10.4.1).
_HASHED = frozenset(
    (
        EventType.SEPARATOR,
        EventType.ACTION,
        EventType.S_CRTM_VERSION,
        EventType.OMIT_BOOT_DEVICE_EVENTS,
        EventType.EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EFI_VARIABLE_BOOT2,
        EventType.EFI_VARIABLE_AUTHORITY,
        EventType.EFI_GPT_EVENT,
        EventType.EFI_GPT_EVENT2,
        EventType.EFI_ACTION,
        EventType.EFI_HCRTM_EVENT,
    )
)
_KNOWN = frozenset(EventType)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a log extends: its bank's registers 0 to 23 afterwards, and how each came to be."""

    log: EventLog
    alg: int
    at: int
    locality: Locality
    values: tuple[bytes, ...]

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        """Return what a TPM in this state quotes (TPM 2.0 part 3, TPM2_Quote, by SHA-256)."""
        return sha256(*(self.values[pcr] for pcr in pcrs))

    def events(self, pcr: int) -> tuple[Event, ...]:
        """Return the events that extended a register, in order."""
        return tuple(e for e in self.log.events if e.pcr == pcr and extends(e))

    def components(self, pcr: int) -> tuple[Component, ...]:
        """Return what extended a register, by name."""
        digests = ((event, event.digests[self.at]) for event in self.events(pcr))
        return tuple(
            Component(label=describe(event), digest=digest.hex())
            for event, digest in digests
            if digest is not None
        )


def extends(event: Event) -> bool:
    """Tell whether an event was extended into its register at all."""
    return event.kind != EventType.NO_ACTION


def startup_locality(log: EventLog) -> Locality:
    """Return the locality a log says its TPM was started at; V54 judges whether it says it well."""
    for event in log.events:
        if event.kind == EventType.EFI_HCRTM_EVENT and event.pcr == 0:
            return 4
        if _names_locality(event):
            return next((known for known in LOCALITIES if known == event.data[-1]), 0)
    return 0


def _names_locality(event: Event) -> bool:
    return (
        event.kind == EventType.NO_ACTION
        and len(event.data) == len(_LOCALITY) + 1
        and event.data.startswith(_LOCALITY)
    )


def replay(log: EventLog, alg: int = ALG_SHA256) -> Replay:
    """Extend what a log says was extended, in one bank; `Malformed` if it has no such bank.

    Registers start as TPM2_Startup leaves them: PCR 0 at the locality, 17 to 22 at ones.
    """
    at = log.bank(alg)
    if at is None or alg not in _HASHES:
        raise Malformed(f"event log: has no digests of bank {_HASHES.get(alg, hex(alg))}")
    size, locality = log.banks[at].digest_bytes, startup_locality(log)
    values = [bytes(size)] * PCR_COUNT
    for pcr in _DYNAMIC_PCRS:
        values[pcr] = b"\xff" * size
    values[0] = bytes(size - 1) + bytes([locality])
    make = getattr(hashlib, _HASHES[alg])
    for event in log.events:
        digest = event.digests[at]
        if digest is not None and event.kind != EventType.NO_ACTION:
            values[event.pcr] = make(values[event.pcr] + digest).digest()
    return Replay(log=log, alg=alg, at=at, locality=locality, values=tuple(values))


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a register's components differ from a golden set's.

    ``place`` counts from 0.  ``expected`` are those of the golden set that are not there,
    ``found`` those that are there instead; an exact value has no components to name.
    """

    pcr: int
    place: int
    expected: tuple[str, ...]
    found: tuple[str, ...]

    def words(self) -> str:
        """Say it in one line."""
        there = f"pcr {self.pcr}"
        if not self.expected and not self.found:
            return f"{there}: another value"
        if self.expected == self.found:
            return f"{there}: {_few(self.expected)} changed"
        if not self.found:
            return f"{there}: {_few(self.expected)} is missing"
        if not self.expected:
            return f"{there}: {_few(self.found)} was added"
        return f"{there}: {_few(self.found)} instead of {_few(self.expected)}"


def _few(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{label}'" for label in labels[:_MAX_REASONS])
    more = len(labels) - _MAX_REASONS
    return f"{shown} and {more} more" if more > 0 else shown


def differences(replayed: Replay, golden: GoldenSet) -> tuple[Difference, ...]:
    """Compare a log with a golden set, register by register, and name what differs.

    What a register begins and ends with in both is left out; that takes one look at each event,
    however long a log a host may show.
    """
    return tuple(
        _difference(expected if isinstance(expected, PcrEvents) else None, expected.pcr, replayed)
        for expected in golden.pcrs
        if replayed.values[expected.pcr].hex() != expected.value
    )


def _difference(expected: PcrEvents | None, pcr: int, replayed: Replay) -> Difference:
    if expected is None:
        return Difference(pcr=pcr, place=0, expected=(), found=())
    if pcr == 0 and expected.locality != replayed.locality:
        return Difference(
            pcr=pcr,
            place=0,
            expected=(f"startup at locality {expected.locality}",),
            found=(f"startup at locality {replayed.locality}",),
        )
    return compare(pcr, expected.components, replayed.components(pcr))


def compare(pcr: int, wanted: Sequence[Component], there: Sequence[Component]) -> Difference:
    """Name what lies between the common beginning and the common end of two lists."""
    shorter = min(len(wanted), len(there))
    start = 0
    while start < shorter and wanted[start].digest == there[start].digest:
        start += 1
    end = 0
    while end < shorter - start and wanted[-1 - end].digest == there[-1 - end].digest:
        end += 1
    return Difference(
        pcr=pcr,
        place=start,
        expected=tuple(c.label for c in wanted[start : len(wanted) - end]),
        found=tuple(c.label for c in there[start : len(there) - end]),
    )


def explain(log: bytes, golden: GoldenSet) -> str:
    """Say by which components a log differs from a golden set; "" where it cannot tell."""
    try:
        found = differences(replay(parse_event_log(log)), golden)
    except Malformed:
        return ""
    return "; ".join(difference.words() for difference in found)


def check_event_log(
    log: bytes, *, demand: LogDemand, quoted: bytes, golden: GoldenSet, subject: str
) -> tuple[Verdict, ...]:
    """Judge a log beside the digest of registers that a quote proved: V53 to V56.

    ``quoted`` is SHA-256 over the golden set's registers, as TPM2_Quote makes it; that the quote
    is over these registers, and signed, is V50's to say.  A log that is not demanded may be
    absent (empty), but one that is shown has to be right.
    """
    ledger = Ledger(subject=subject)
    if not log and demand == "optional":
        for check in ("V53", "V54", "V55", "V56"):
            ledger.skip(f"attestation.{check}", "no event log, and the policy asks for none")
        return ledger.done()
    if not log:
        ledger.add("attestation.V53", False, "no event log, and the policy asks for one")
        return ledger.done()
    try:
        parsed = parse_event_log(log)
        replayed = replay(parsed)
    except Malformed as error:
        ledger.add("attestation.V54", False, error.reason)
        ledger.add("attestation.V53", False, "there is no log to replay")
        return ledger.done()
    pcrs = golden.selection()
    reproduced = hmac.compare_digest(replayed.pcr_digest(pcrs), quoted)
    wrong = "; ".join(difference.words() for difference in differences(replayed, golden))
    ledger.add(
        "attestation.V53",
        reproduced,
        f"the log's {len(parsed.events)} events explain every register quoted",
        otherwise=f"the log is not of this boot: {wrong or 'other registers than quoted'}",
    )
    faults = log_faults(parsed, replayed.at)
    more = len(faults) - _MAX_REASONS
    ledger.add(
        "attestation.V54",
        not faults,
        "the log follows its rules, and data agree with digests",
        otherwise="; ".join(faults[:_MAX_REASONS]) + (f"; and {more} more" if more > 0 else ""),
    )
    _secure_boot(ledger, replayed, pcrs, believed=reproduced and not faults)
    _after_boot(ledger, parsed, pcrs, reproduced=reproduced)
    return ledger.done()


def log_faults(log: EventLog, at: int) -> tuple[str, ...]:
    """List what a log may not do, though it parses; ``at`` is the bank its digests count in."""
    faults: list[str] = []
    separators = [0] * PCR_COUNT
    started = localities = crtms = 0
    for number, event in enumerate(log.events, 0 if log.spec is None else 1):
        fault = _event_fault(event, log, at)
        if fault:
            faults.append(f"event {number}: {fault}")
        if event.kind == EventType.SEPARATOR and event.pcr < PCR_COUNT:
            separators[event.pcr] += 1
        # How PCR 0 began cannot be said once it was extended, nor twice.
        if _names_locality(event):
            localities += 1
            if started or localities > 1 or (event.pcr, event.data[-1] in LOCALITIES) != (0, True):
                faults.append(f"event {number}: a startup locality that cannot be there")
        if event.kind == EventType.EFI_HCRTM_EVENT:
            crtms += 1
            if started or event.pcr:
                faults.append(f"event {number}: an H-CRTM that is not PCR 0's beginning")
        started += event.pcr == 0 and extends(event)
    if crtms and any(_names_locality(e) and e.data[-1] != _HCRTM_LOCALITY for e in log.events):
        faults.append("a startup locality that contradicts the H-CRTM")
    faults += [
        f"pcr {pcr} has {separators[pcr]} separators, not one"
        for pcr in _BOOT_PCRS
        if separators[pcr] != 1
    ]
    return tuple(faults)


def _event_fault(event: Event, log: EventLog, at: int) -> str:
    """Return what is wrong with one event, "" if nothing is."""
    kind, data = event.kind, event.data
    # An unknown type is either newer than this program or invented; who relabels an event that
    # really happened must at least call it something whose rules are known.
    if kind not in _KNOWN:
        return f"unknown type {kind:#x}"
    if event.pcr == NO_REGISTER or kind == EventType.NO_ACTION:
        return ""
    if None in event.digests:
        return f"digests of {_given(event)} of the {len(log.banks)} banks declared"
    if kind == EventType.SEPARATOR and event.pcr in _BOOT_PCRS and data not in SEPARATORS:
        return "a separator that reports an error"
    digest = event.digests[at] or b""
    if kind in _HASHED:
        if not hmac.compare_digest(_hash(log, at, data), digest):
            return "data that its digest is not of"
    elif kind == EventType.EFI_VARIABLE_BOOT:
        # Firmware before 2015 or so measures the whole variable, later firmware its value only.
        found = variable(data)
        value = found.value if found else data
        if digest not in (_hash(log, at, data), _hash(log, at, value)):
            return "data that its digest is not of"
    return ""


def _given(event: Event) -> int:
    return sum(digest is not None for digest in event.digests)


def _hash(log: EventLog, at: int, data: bytes) -> bytes:
    return hashlib.new(_HASHES[log.banks[at].alg], data).digest()


def _secure_boot(ledger: Ledger, replayed: Replay, pcrs: Sequence[int], *, believed: bool) -> None:
    """Say what the log says of Secure Boot; a golden set over PCR 7 is what decides about it."""
    state = secure_boot(replayed)
    if not believed or state is None or 7 not in pcrs:
        ledger.skip("attestation.V55", "the log does not prove whether Secure Boot is on")
    elif state:
        ledger.add("attestation.V55", True, "Secure Boot is on")
    else:
        ledger.skip("attestation.V55", "Secure Boot is off, as the golden set has it")


def secure_boot(replayed: Replay) -> bool | None:
    """Return whether the variable SecureBoot was measured as 1; None where that is not plain.

    It must be what PCR 7 begins with: a later event of the same bytes may be anybody's, measured
    as something else and relabelled.
    """
    events = replayed.events(7)
    if not events or events[0].kind != EventType.EFI_VARIABLE_DRIVER_CONFIG:
        return None
    found = variable(events[0].data)
    if found is None or (found.guid, found.name) != (_GLOBAL_VARIABLE, "SecureBoot"):
        return None
    return found.value == b"\x01"


def _after_boot(ledger: Ledger, log: EventLog, pcrs: Sequence[int], *, reproduced: bool) -> None:
    system = [pcr for pcr in pcrs if pcr in _SYSTEM_PCRS]
    ended = any(e.kind == EventType.EFI_ACTION and e.data == _EXIT for e in log.events)
    how_far = "" if ended else "; the log does not show the end of boot services"
    if not system:
        ledger.skip("attestation.V56", f"no register that a running system extends{how_far}")
        return
    listed = ", ".join(map(str, system))
    ledger.add(
        "attestation.V56",
        reproduced,
        f"nothing extended pcr {listed} after the log ended{how_far}",
        otherwise=f"pcr {listed} may have been extended after the log ended{how_far}",
    )
