"""Verify a model directory by OpenSSF Model Signing, alone.  Format: model.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec.structs import replace

from custody.formats.model_files import SignedFile
from custody.ops.model_hash import Found, ModelDirectory, Stretch
from custody.ops.progress import Progress, silent
from custody.rules.model import (
    ModelTrust,
    judge_digests,
    judge_listing,
    judge_signature,
)
from custody.rules.verdicts import Ledger, Verdict


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a model and its signature; only ``verdicts`` say whether it holds.

    ``files`` and ``size_bytes`` count what was hashed.
    """

    verdicts: tuple[Verdict, ...]
    files: int
    size_bytes: int


def verify_directory(
    model: Path,
    data: bytes,
    *,
    trust: ModelTrust,
    signature: Path | None = None,
    progress: Progress = silent,
) -> ModelReport:
    """Judge whether a directory, or a single file, is what a ``model.sig`` says.

    ``data`` is the signature, ``signature`` the path it was read from, which is no part of the
    model even where it lies in it.  No file is read before the signature itself holds.  Raises
    `Unavailable` for what cannot be read, ``Refused("model.changed")`` for what is being written.
    """
    ledger = Ledger()
    judged = judge_signature(data, trust, ledger)
    if judged.signature is None or judged.files is None:
        ledger.skip("model.files", "no file was looked at: the signature does not hold")
        return ModelReport(verdicts=ledger.done(), files=0, size_bytes=0)
    with closing(ModelDirectory(model)) as directory:
        found = {file.entry.name: file for file in _listed(directory, judged.files)}
        judge_listing(
            judged.files,
            [file.entry for file in found.values()],
            signature=judged.signature,
            trust=trust,
            itself=inside(model, signature) if signature is not None else None,
            ledger=ledger,
        )
        # What a link or a device would give is not the model's.
        there = [f for f in judged.files if f.name in found and found[f.name].entry.kind == "file"]
        size = sum(found[file.name].entry.size_bytes for file in there)
        bad = _compare(directory, there, found, algorithm=judged.algorithm, progress=progress)
    judge_digests(there, bad, len(there), ledger)
    return ModelReport(verdicts=ledger.done(), files=len(there), size_bytes=size)


def _compare(
    directory: ModelDirectory,
    files: Sequence[SignedFile],
    found: dict[str, Found],
    *,
    algorithm: str,
    progress: Progress,
) -> set[str]:
    """Hash files; return the names of those that are not as signed."""
    sizes = {file.name: found[file.name].entry.size_bytes for file in files}
    bad = {file.name for file in files if file.size_bytes not in (None, sizes[file.name])}
    wanted: list[tuple[str, bytes]] = []
    stretches: list[Stretch] = []
    for file in files:
        if file.name in bad:
            continue
        for piece in file.pieces:
            end = sizes[file.name] if piece.end is None else piece.end
            wanted.append((file.name, piece.digest))
            stretches.append(Stretch(found[file.name], piece.start, end))
    digests = directory.digests(stretches, algorithm=algorithm, progress=progress)
    for (name, digest), got in zip(wanted, digests, strict=True):
        if digest != got:
            bad.add(name)
    return bad


def _listed(directory: ModelDirectory, files: Sequence[SignedFile]) -> tuple[Found, ...]:
    """List a model; a model that is one file is called what the signature calls it."""
    found = directory.entries()
    if directory.is_file and len(files) == 1 and files[0].name == ".":
        return tuple(replace(one, entry=replace(one.entry, name=".")) for one in found)
    return found


def inside(model: Path, path: Path) -> str | None:
    """Return a path's name relative to the model, if it lies in it."""
    # Folders are resolved, the last name is not: where it is a link, the link is what lies here.
    there = path.parent.resolve() / path.name
    try:
        return os.fspath(there.relative_to(model.resolve()).as_posix())
    except ValueError:
        return None
