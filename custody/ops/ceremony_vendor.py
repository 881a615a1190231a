"""What a vendor attests of keys at a ceremony, by roots that its script names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from custody.encoding import key_id
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Admit, Enrol, attestation_name
from custody.formats.envelope import decode_statement
from custody.formats.state import Identity
from custody.ops import admit as people
from custody.ops.admit import CheckedAdmission
from custody.ops.ceremony_place import Outcome, Place
from custody.ops.pem import read_certificates
from custody.rules.ceremony_vendor import offered_keys, roots_of, vouched, vouching
from custody.rules.vendor import CHECK


def vendor_words(step: Enrol | Admit) -> str:
    """Say what a vendor has to attest in a step; "" where a script says nothing of it."""
    if step.attestation is None:
        return ""
    what = "these keys" if isinstance(step, Enrol) else "the keys that are brought"
    by = "has to attest" if step.attestation == "required" else "may attest"
    return f"; a vendor {by} {what}, by the root {' or '.join(step.roots)}"


def brought(place: Place, step: Enrol, identity: Identity) -> tuple[bytes, ...]:
    """Return the vendor's certificates that somebody brings for keys that he has made (DER).

    They can be made for keys that there are, no sooner: the people there are told of which.
    Where the script requires them and they are not here: `Incomplete`, and the step is done again.
    """
    path = place.held.folder / attestation_name(step.who)
    if not path.is_file():
        keys = [f"  sign   {key_id(identity.signing_spki)}"]
        keys += [f"  share  {key_id(share.spki)}" for share in identity.shares]
        place.table.show(
            (
                f"  the keys of {step.who} are made; certificates of their vendor, up to a root:",
                f"  {path}",
                *keys,
            )
        )
        place.table.confirm("go on?")
    if path.is_file():
        return read_certificates([path])
    if step.attestation == "required":
        raise Incomplete(
            "is not here yet, and the script requires that a vendor attests these keys",
            missing=(f"{path.name}, in {place.held.folder}",),
            where=path.name,
            hint="the keys are made: have the token attest them, put the certificates there (PEM),"
            " up to a root that the script names, and go on with the same command",
        )
    return ()


@contextmanager
def of_file(step: Enrol) -> Iterator[None]:
    """Say which file is to be mended where what it attests does not hold."""
    name = attestation_name(step.who)
    try:
        yield
    except (Malformed, Refused) as error:
        if isinstance(error, Malformed) or error.check == CHECK:
            error.where = error.where or name
            error.hint = f"mend {name}, in the ceremony's folder, and go on with the same command"
        raise


def tell(place: Place, step: Enrol, outcome: Outcome, data: bytes) -> None:
    """Verify what a vendor attests of an admission (``.dsse``), for the record and for people."""
    admission = decode_statement(Admission, data).predicate
    keys = vouched(step, admission, now=place.table.now())
    outcome.attested += keys
    words = {key.key: key.words() for key in keys}
    for key in offered_keys(admission):
        shown = words.get(key)
        outcome.said.append(
            f"key {key[:16]}… is {shown}, by its vendor"
            if shown
            else f"key {key[:16]}… is not attested by its vendor"
        )


def attested(place: Place, step: Admit, file: str, checked: CheckedAdmission) -> CheckedAdmission:
    """Judge again what a vendor attests of an admission that is admitted, and by nothing else.

    What the custodian's home keeps of it is by roots that the script need not name.
    """
    admission = checked.statement.predicate
    by = vouching(place.script, step, file)
    try:
        keys = vouched(by, admission, now=place.table.now())
    except Refused as error:
        error.where = file
        raise
    return replace(checked, attested=keys)


def keep_attested(place: Place, step: Admit, file: str, checked: CheckedAdmission) -> None:
    """Keep in the custodian's home what was shown, for what he proposes later."""
    if checked.attested:
        admission = checked.statement.predicate
        roots = roots_of(vouching(place.script, step, file), admission)
        people.attest(place.home(step.by), checked, roots=roots, now=place.table.now())
