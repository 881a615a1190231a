"""Open a bundle again with the key that is kept of it.  Protocol section 6, "Sealed".

The order is that of `ops.open`: every rule first, by the newest policy and revocation lists here,
then the TPM, which by itself refuses another boot state and a key that was forgotten, then the
commitment, then every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from custody.crypto.parts import check_cek
from custody.crypto.secret import wipe
from custody.errors import Refused
from custody.formats.contents import Contents
from custody.formats.goldenset import GoldenSet
from custody.formats.receipt import Receipt
from custody.keys.hostapi import HostTpm
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file
from custody.ops.kept import Kept
from custody.ops.landing import check_absent, resumable_directory
from custody.ops.model_signature import judge_contents
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.receipts import HostPlace
from custody.rules.eventlog import explain
from custody.rules.request import endorsement_key, enrolment_of, golden_of
from custody.rules.retained import check_retained
from custody.rules.situation import Situation
from custody.rules.verdicts import require


def unseal_release(
    bundle: Bundle,
    target: Path,
    *,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    event_log: bytes = b"",
    base: Path | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> Contents:
    """Open ``bundle`` into the new directory ``target`` with the key that is kept of it.

    As often as asked, while the policy in force, the manifest's own end, the revocation lists and
    the boot state allow it.  ``event_log`` only helps to name what changed; ``base`` is the
    directory of the model that a delta is to.  Raises `Incomplete` where nothing is kept, `Refused`
    with the first check that fails.
    """
    check_absent(target)
    kept = place.keys.find(bundle.statement.digest)
    with _unsealed(bundle, kept, situation, tpm, place, event_log) as cek:
        contents = bundle.contents_under(cek)
        publisher = situation.trusted.policy.signing_key(bundle.core.publisher)
        require(judge_contents(contents, publisher.spki if publisher else None))
        with resumable_directory(target, kept.manifest[:16]) as staging:
            open_into(
                bundle.path,
                staging,
                core=bundle.core,
                contents=contents,
                cek=cek,
                base=base,
                progress=progress,
                workers=workers,
            )
    return contents


@contextmanager
def _unsealed(
    bundle: Bundle,
    kept: Kept,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    event_log: bytes,
) -> Iterator[bytearray]:
    """Give the content key for the block, after every rule and then the TPM have agreed."""
    _check_receipt(kept, place)
    request = place.keys.request(kept)
    enrolment, golden = enrolment_of(request, situation), golden_of(request, situation)
    require(
        check_retained(
            request,
            bundle.statement,
            enrolment=enrolment,
            golden=golden,
            pcr_digest=kept.key.pcr_digest,
            situation=situation,
        )
    )
    _check_state(golden.predicate, tpm, event_log)
    salted = tpm.salted_to(endorsement_key(enrolment.predicate))
    cek = salted.unseal_retained(kept.key)
    try:
        core = bundle.core
        check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
        yield cek
    finally:
        wipe(cek)


def _check_receipt(kept: Kept, place: HostPlace) -> None:
    """Refuse a key whose opening was never accounted for: it is on no record that it is kept."""
    path = place.receipt_path(kept.request)
    if not path.exists() or read_statement_file(Receipt, path).predicate.outcome != "retained":
        raise Refused(
            "there is no receipt that says it is kept: its opening did not come to an end",
            check="retained.receipt",
            where=f"request {kept.request[:16]}",
            hint="custody host open finishes it, custody host forget destroys the key",
        )


def _check_state(golden: GoldenSet, tpm: HostTpm, event_log: bytes) -> None:
    """Say which register is not as it was; the TPM by itself would only say no."""
    values = tpm.pcr_values(golden.selection())
    changed = differing(golden, values)
    if not changed:
        return
    named = explain(event_log, golden) if event_log else ""
    raise Refused(
        f"the key is kept for {golden.name}, epoch {golden.epoch}: "
        f"pcr {', '.join(map(str, changed))} differ" + (f"; by its log {named}" if named else ""),
        check="tpm.pcr",
        hint="boot that system, or ask anew: custody host request --mode sealed",
    )


def differing(golden: GoldenSet, values: Sequence[bytes]) -> tuple[int, ...]:
    """Return the registers whose values are not a golden set's."""
    return tuple(
        expected.pcr
        for expected, value in zip(golden.pcrs, values, strict=True)
        if expected.value != value.hex()
    )
