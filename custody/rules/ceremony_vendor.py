"""Whether a vendor attests keys of a ceremony, by the roots that its script names."""

from __future__ import annotations

from datetime import datetime

from custody.crypto.certificates import read_csr
from custody.encoding import key_id, sha256
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Admit, Enrol, Script, Step, admission_name
from custody.formats.transcript import Done, Line
from custody.formats.vendor import KeyAttestation
from custody.rules.ceremony_seen import Seen
from custody.rules.vendor import CHECK, check_attestation
from custody.rules.verdicts import Ledger, require


def vouching(script: Script, step: Admit, file: str) -> Enrol | Admit:
    """Return the step that says what a vendor has to attest of an admission in this file.

    Of whoever enrolled at the table that is where he did, of what is brought where it is admitted.
    """
    enrols = (s for s in script.steps if isinstance(s, Enrol) and s.who in step.who)
    return next((enrol for enrol in enrols if admission_name(enrol.who) == file), step)


def roots_of(step: Enrol | Admit, admission: Admission) -> tuple[bytes, ...]:
    """Return those of an admission's certificates that the script names as roots."""
    return tuple(der for der in admission.attestation if sha256(der).hex() in step.roots)


def vouched(
    step: Enrol | Admit, admission: Admission, *, now: datetime
) -> tuple[KeyAttestation, ...]:
    """Return the keys of an admission that a vendor attests, by the roots that a step names.

    `Refused` (``admission.attestation``): one that is brought and does not hold, and where the
    script requires it every key without one.  A script that names no roots has nothing verified.
    """
    if step.attestation is None:
        return ()
    required = step.attestation == "required"
    if not admission.attestation and not required:
        return ()
    if not admission.attestation:
        raise Refused(
            f"{admission.principal} brings no vendor's attestation, and the script requires one",
            check=CHECK,
        )
    roots = roots_of(step, admission)
    if not roots:
        raise Refused(
            f"{admission.principal} brings none of the roots that the script names", check=CHECK
        )
    keys, verdicts = check_attestation(admission, roots=roots, now=now)
    require(verdicts)
    shown = {key.key for key in keys}
    bare = [key for key in offered_keys(admission) if key not in shown]
    if required and bare:
        raise Refused(
            f"the script requires that a vendor attests every key, and none attests {bare[0]}",
            check=CHECK,
        )
    return keys


def offered_keys(admission: Admission) -> tuple[str, ...]:
    """Return the key ids of an admission's keys, the signing key first."""
    shares = (share.spki for share in admission.shares)
    return tuple(map(key_id, (read_csr(admission.csr).spki, *shares)))


def judge_vouched(step: Step, event: Done, line: Line, seen: Seen, ledger: Ledger) -> None:
    """Judge what a step's record says of vendors, by the admissions that it wrote or read."""
    check = "ceremony.attestation"
    if not isinstance(step, Enrol | Admit):
        if event.attested:
            ledger.add(check, False, "says that a vendor attests keys, and no key is offered")
        return
    names = [admission_name(step.who)] if isinstance(step, Enrol) else _files_of(step)
    found: list[KeyAttestation] = []
    asked = False
    with ledger.failing(check):
        for name in names:
            by = vouching(seen.script, step, name) if isinstance(step, Admit) else step
            if by.attestation is None:
                continue
            asked = True
            if name not in seen.admissions:
                raise Refused(f"no good {name} was offered", check=check)
            found += vouched(by, seen.admissions[name].predicate, now=line.record.at)
        if tuple(found) != event.attested:
            raise Refused("says otherwise what a vendor attests", check=check)
        seen.attested |= {key.key for key in found}
        for key in found:
            ledger.add(check, True, f"key {key.key[:16]}… is {key.words()}")
        if asked and not found:
            ledger.skip(check, "no vendor attests these keys, and none has to")


def _files_of(step: Admit) -> list[str]:
    return [*map(admission_name, step.who), *step.files]
