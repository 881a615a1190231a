"""Sign a model directory by OpenSSF Model Signing, alone.  Format: model.md."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from custody.errors import Refused
from custody.formats.model import Resource, is_safe
from custody.ops.keys import Signer
from custody.ops.model_files import SourceFile, scan
from custody.ops.model_hash import Found, ModelDirectory, Stretch
from custody.ops.model_signature import sign_model
from custody.ops.model_verify import inside
from custody.ops.progress import Progress, silent
from custody.rules.model import Entry, lies_below


def sign_directory(
    model: Path,
    *,
    signer: Signer,
    certificates: Sequence[bytes] = (),
    signature: Path | None = None,
    ignore: Sequence[str] = (),
    progress: Progress = silent,
) -> bytes:
    """Write the ``model.sig`` of a directory, over every file in it but those below ``ignore``.

    ``signature`` is where it will be put; inside the model, that one path is written down as
    ignored, as the reference has it.  Raises `Refused` (``model.*``) as `model_files.scan` does,
    and for a path to ignore that is not in the model.
    """
    files = _to_sign(scan(model).files, ignore, model)
    own = inside(model, signature) if signature is not None else None
    with closing(ModelDirectory(model)) as directory:
        found = [Found(Entry(file.name, "file", file.size_bytes), file.identity) for file in files]
        whole = [Stretch(file, 0, file.entry.size_bytes) for file in found]
        digests = directory.digests(whole, algorithm="sha256", progress=progress)
    resources = [
        Resource(name=file.name, algorithm="sha256", digest=digest.hex())
        for file, digest in zip(files, digests, strict=True)
    ]
    return sign_model(
        resources,
        signer=signer,
        certificates=certificates,
        model_name=model.resolve().name,
        ignore_paths=[*ignore, *([own] if own else [])],
    )


def _to_sign(
    files: Sequence[SourceFile], ignore: Sequence[str], model: Path
) -> tuple[SourceFile, ...]:
    for path in ignore:
        # The reference drops such a path in silence and signs what was to be left out.
        if not is_safe(path) or not any(lies_below(file.name, (path,)) for file in files):
            raise Refused(
                f"no file to ignore: {path[:240]!r}", check="model.ignore", where=str(model)
            )
    kept = tuple(file for file in files if not lies_below(file.name, ignore))
    if not kept:
        raise Refused("every file would be ignored", check="model.empty", where=str(model))
    return kept
