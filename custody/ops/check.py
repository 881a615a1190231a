"""Every check of a bundle that needs no key: what a relay, a store or a careful person runs."""

from __future__ import annotations

from pathlib import Path

from custody.crypto.parts import MAX_PARTS
from custody.errors import Incomplete, Refused
from custody.ops.bundle import PAYLOAD, Bundle
from custody.ops.payload_open import check_payload
from custody.ops.progress import Progress, silent
from custody.ops.resume import CheckMemory
from custody.rules.manifest import check_manifest
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict


def check_bundle(
    bundle: Bundle,
    *,
    situation: Situation,
    memory: Path | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> tuple[Verdict, ...]:
    """Judge the manifest, and hold contents, parts and payload against it.

    In the folder ``memory`` an interrupted check leaves which parts were good, for the next.
    """
    ledger = Ledger(subject=str(bundle.path))
    ledger.extend(check_manifest(bundle.statement, situation))
    for check, what, run in (
        ("contents.digest", "contents are the signed ones", bundle.sealed_contents),
        (
            "payload.parts",
            "every part is the signed one",
            lambda: _check_parts(bundle, memory, progress, workers),
        ),
    ):
        try:
            run()
            ledger.add(check, True, what)
        except (Refused, Incomplete) as error:
            ledger.add(getattr(error, "check", check), False, str(error))
    return ledger.done()


def _check_parts(
    bundle: Bundle, folder: Path | None, progress: Progress, workers: int | None
) -> None:
    path, core = bundle.path, bundle.core
    if folder is None or core.part_count > MAX_PARTS or not (path / PAYLOAD).exists():
        check_payload(path, core, progress=progress, workers=workers)
        return
    with CheckMemory(folder, bundle.statement.digest, path, core) as memory:
        check_payload(path, core, checked=memory, progress=progress, workers=workers)
