"""Destroy a publisher's copies of a superseded bundle, and say so.  Format: disposal.md.

The statement comes last: a command that was killed can be given again, and none that was written
says what is not so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.disposal import Destroyed, Disposal
from custody.formats.envelope import Statement
from custody.formats.manifest import Manifest
from custody.ops.bundle import CONTENTS, MANIFEST, PARTS, PAYLOAD
from custody.ops.folders import read_statement_file
from custody.ops.keys import Signer
from custody.ops.landing import disk_errors, write_new_file
from custody.ops.resume import SealKeeper
from custody.rules.disposal import Superseded, superseded
from custody.rules.situation import Situation

_FILES = (PAYLOAD, PARTS, CONTENTS, MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A bundle that may be destroyed, and what of it there is."""

    bundle: Path
    statement: Statement[Manifest]
    superseded: Superseded
    files: tuple[tuple[Destroyed, Path, int], ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes go."""
        return sum(size for _, _, size in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposed:
    """A statement that was written."""

    manifest: Digest
    data: bytes
    said: Disposal


def check_doomed(
    bundle: Path, *, situation: Situation, records: Path, keeper: SealKeeper | None
) -> Doomed:
    """Judge whether a bundle may be destroyed; nothing is touched.

    ``records`` is the folder of what updates are cut by, a file for each manifest.

    Raises `Refused`: ``dispose.superseded`` where it may still be released, ``dispose.publisher``
    where another published it, ``dispose.strange`` where something lies in it that is not its own.
    """
    statement = read_statement_file(Manifest, bundle / MANIFEST)
    found = superseded(
        statement,
        situation.documents.manifests,
        situation.trusted.policy,
        now=situation.now,
    )
    if found is None:
        raise Refused(
            f"may be released until {statement.predicate.core.not_after:%Y-%m-%d}, and nothing "
            "here replaces it",
            check="dispose.superseded",
            where=str(bundle),
            hint="put the manifest that replaces it with the files of --env",
        )
    files: list[tuple[Destroyed, Path, int]] = [
        ("bundle", path, size) for path, size in _bundle_files(bundle)
    ]
    record = records / f"{statement.digest}.json"
    if record.is_file():
        files.append(("record", record, record.stat().st_size))
    if keeper is not None and keeper.find(bundle) is not None:
        files.append(("unfinished", bundle, 0))
    return Doomed(bundle=bundle, statement=statement, superseded=found, files=tuple(files))


def dispose(
    doomed: Doomed,
    out: Path,
    *,
    situation: Situation,
    signer: Signer,
    keeper: SealKeeper | None,
    now: datetime,
) -> Disposed:
    """Destroy the payload and all else, sign, write the statement, then remove the manifest."""
    core = doomed.statement.predicate.core
    if signer.key_id != core.publisher:
        raise Refused(
            "another key published this bundle",
            check="dispose.publisher",
            where=str(doomed.bundle),
        )
    manifest = doomed.bundle / MANIFEST
    for kind, path, _ in doomed.files:
        if path == manifest:
            continue
        if kind == "unfinished" and keeper is not None:
            keeper.forget(path)
        else:
            with disk_errors(path):
                path.unlink(missing_ok=True)
    said = Disposal(
        environment=situation.trusted.genesis,
        manifest=doomed.statement.digest,
        replaced_by=doomed.superseded.replaced_by,
        destroyed=tuple(sorted({kind for kind, _, _ in doomed.files})),
        destroyed_bytes=doomed.size_bytes,
        disposed_at=now,
    )
    data = signer.statement(said)
    write_new_file(out, data)
    with disk_errors(doomed.bundle):
        manifest.unlink(missing_ok=True)
        doomed.bundle.rmdir()
    return Disposed(manifest=said.manifest, data=data, said=said)


def _bundle_files(bundle: Path) -> Iterator[tuple[Path, int]]:
    """List a bundle's files with their sizes; a strange one keeps everything from going."""
    with disk_errors(bundle):
        for entry in sorted(os.scandir(bundle), key=lambda entry: entry.name):
            about = entry.stat(follow_symlinks=False)
            if entry.name not in _FILES or not stat.S_ISREG(about.st_mode):
                raise Refused(
                    "lies in the bundle and is no part of it: look at it first",
                    check="dispose.strange",
                    where=entry.path,
                )
            yield Path(entry.path), about.st_size
