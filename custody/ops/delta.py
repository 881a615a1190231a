"""Find what a model has in common with one that the receiver has, and lay out only the rest.

What is known of the base is either the fingerprints of its parts, which its sealing left in the
publisher's home, or its files.  Fingerprints cost little and find whatever lies where it lay, to
the byte; files are read again and find a tensor wherever it went.  parts.md, Rationale,
has what either saves.  Format: contents.md, "Deltas".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from custody.crypto.fingerprint import FINGERPRINT_BYTES, fingerprint
from custody.crypto.parts import PART_SIZES, ROW_BYTES, padded_parts
from custody.encoding import Digest
from custody.errors import Incomplete, Refused
from custody.formats.contents import Base, File, Taken
from custody.formats.manifest import Manifest
from custody.ops.bundle import MANIFEST
from custody.ops.folders import read_statement_file
from custody.ops.model_files import Layout, SourceFile, default_part_size, plan_layout, scan
from custody.ops.part_map import range_of, uncovered
from custody.ops.progress import Progress, silent
from custody.ops.sealed_model import SealedModel
from custody.ops.windows import (
    Key,
    Window,
    blake3_digest,
    cut_at_tensors,
    cut_evenly,
    digest_windows,
    least_part_size,
)

#: What the digest of a part that is taken costs in the contents, in base64.
_DIGEST_CHARACTERS = 43


class Known(Protocol):
    """What is known of a base: its windows, and how to cut another model alike."""

    @property
    def manifest(self) -> Digest:
        """The manifest the receiver opened it from."""

    @property
    def names(self) -> Sequence[str]:
        """Its files, in code-point order."""

    def windows(self, progress: Progress) -> tuple[Sequence[Window], Sequence[Key]]:
        """Return its windows and what they are found by."""

    def cut(
        self, model: Path, files: Sequence[SourceFile], progress: Progress
    ) -> tuple[Sequence[Window], Sequence[Key]]:
        """Cut another model into windows that can be found among these."""


class KnownParts:
    """A base of which fingerprints of parts are known, and digests of small files."""

    def __init__(self, sealed: SealedModel) -> None:
        """Take what its sealing left."""
        self._sealed = sealed
        self.manifest = sealed.manifest
        self.names = tuple(file.name for file in sealed.files)

    def windows(self, progress: Progress) -> tuple[Sequence[Window], Sequence[Key]]:
        """Return its parts and small files; reads nothing."""
        sealed, size = self._sealed, self._sealed.part_size_bytes
        windows = list(_cut_in_parts(sealed.files, size))
        keys: list[Key] = []
        for window in windows:
            file = sealed.files[window.file]
            at = FINGERPRINT_BYTES * ((file.offset + window.offset) // size)
            whole = file.size_bytes < size
            key = (
                bytes.fromhex(file.sha256)
                if whole
                else sealed.fingerprints[at : at + FINGERPRINT_BYTES]
            )
            keys.append((key, window.size_bytes))
        return windows, keys

    def cut(
        self, model: Path, files: Sequence[SourceFile], progress: Progress
    ) -> tuple[Sequence[Window], Sequence[Key]]:
        """Cut another model into such parts and small files."""
        size, key = self._sealed.part_size_bytes, self._sealed.fingerprint_key

        def digest(window: Window, view: memoryview) -> bytes:
            if files[window.file].size_bytes < size:
                return sha256(view).digest()
            # As it lies in a payload: behind the end of a large file its part has zeros.
            padding = bytes(size - len(view))
            return fingerprint(key, view.tobytes() + padding if padding else view)

        windows = list(_cut_in_parts(files, size))
        return windows, digest_windows(model, files, windows, digester=digest, progress=progress)


class KnownFiles:
    """A base whose files are at hand."""

    def __init__(self, manifest: Digest, model: Path, other_bytes: int) -> None:
        """Take its directory, and the size of what it will be compared with."""
        found = scan(model)
        self._model = model
        self._files = found.files
        self._window_bytes = least_part_size(max(found.size_bytes, other_bytes))
        self.manifest = manifest
        self.names = tuple(file.name for file in found.files)

    def check(self, sealed: SealedModel) -> None:
        """Refuse a directory whose files are not those that were sealed, by name and size."""
        for here, there in (
            (set(_sizes(self._files)), set(_sizes(sealed.files))),
            (set(_sizes(sealed.files)), set(_sizes(self._files))),
        ):
            for name, _ in sorted(here - there):
                raise Refused(
                    "differs, in size or being there, from what was sealed as the base",
                    check="base.different",
                    where=str(self._model / name),
                    hint="--base-model is the model that --base was sealed from",
                )

    def windows(self, progress: Progress) -> tuple[Sequence[Window], Sequence[Key]]:
        """Read all of it."""
        return self.cut(self._model, self._files, progress)

    def cut(
        self, model: Path, files: Sequence[SourceFile], progress: Progress
    ) -> tuple[Sequence[Window], Sequence[Key]]:
        """Cut a model where its tensors begin."""
        windows = cut_at_tensors(model, files, self._window_bytes)
        return windows, digest_windows(
            model, files, windows, digester=blake3_digest, progress=progress
        )


def known_base(bundle: Path, model: Path, *, memory: Path, base_model: Path | None = None) -> Known:
    """Find out about a base, given as its bundle or manifest, to seal ``model`` as a delta to it.

    The files in ``base_model`` say most; without them, what its sealing left in the folder
    ``memory``.  Raises `Incomplete` where there is neither.
    """
    path = bundle / MANIFEST if bundle.is_dir() else bundle
    manifest = read_statement_file(Manifest, path).digest
    sealed = SealedModel.recall(memory, manifest)
    if base_model is not None:
        known = KnownFiles(manifest, base_model, scan(model).size_bytes)
        if sealed is not None:
            known.check(sealed)
        return known
    if sealed is None:
        raise Incomplete(
            "was not sealed in this home, so nothing is known of its parts",
            missing=("the files it was sealed from",),
            where=str(path),
            hint="--base-model DIR compares with the files it was sealed from",
        )
    return KnownParts(sealed)


def plan_delta(
    model: Path,
    files: Sequence[SourceFile],
    known: Known,
    *,
    part_size_bytes: int | None = None,
    progress: Progress = silent,
) -> Layout:
    """Lay out ``files``, in code-point order, as a delta to ``known``.

    Of all part sizes that leave tables small it takes the one that carries least.  Where nothing is
    in common the layout has no base, and is that of a whole model.
    """
    total = sum(file.size_bytes for file in files)
    usual = part_size_bytes or default_part_size(total)
    least = part_size_bytes or least_part_size(total)
    found = _Found(files, known, progress, model)
    layouts = [found.layout(size) for size in PART_SIZES if least <= size <= usual]
    best = min(layouts, key=_cost)
    return best if best.base else plan_layout(files, usual)


def _cost(layout: Layout) -> int:
    taken = _taken_parts(layout)
    carried = layout.part_count - taken
    sealed = carried * (layout.part_size_bytes + ROW_BYTES)
    return sealed + taken * _DIGEST_CHARACTERS


def _taken_parts(layout: Layout) -> int:
    runs = layout.base.taken if layout.base else ()
    return len({part for run in runs for part in range_of(run, layout.part_size_bytes)})


@dataclass(frozen=True, slots=True)
class _Run:
    offset: int
    size_bytes: int
    file: int
    file_offset: int

    def goes_on_as(self, other: _Run) -> bool:
        return (other.offset, other.file, other.file_offset) == (
            self.offset + self.size_bytes,
            self.file,
            self.file_offset + self.size_bytes,
        )

    def with_(self, other: _Run) -> _Run:
        return _Run(self.offset, self.size_bytes + other.size_bytes, self.file, self.file_offset)

    def cut(self, begin: int, end: int) -> _Run:
        low, high = max(begin, self.offset), min(end, self.offset + self.size_bytes)
        return _Run(low, high - low, self.file, self.file_offset + low - self.offset)


class _Found:
    """The windows of a model that a base has too, and where."""

    def __init__(
        self, files: Sequence[SourceFile], known: Known, progress: Progress, model: Path
    ) -> None:
        self._files = files
        self._known = known
        self._pairs = list(
            self._match(*known.windows(progress), *known.cut(model, files, progress))
        )

    def _match(
        self,
        theirs: Sequence[Window],
        their_keys: Sequence[Key],
        ours: Sequence[Window],
        our_keys: Sequence[Key],
    ) -> Iterator[tuple[Window, Window]]:
        places = {name: n for n, name in enumerate(self._known.names)}
        lies_at = {(w.file, w.offset): n for n, w in enumerate(theirs)}
        first: dict[Key, int] = {}
        for n, key in enumerate(their_keys):
            first.setdefault(key, n)
        ahead: tuple[int, int] | None = None
        for window, key in zip(ours, our_keys, strict=True):
            same = places.get(self._files[window.file].name, -1), window.offset
            # What goes on from the last one first: of two equal tensors either will do, and runs
            # that go on are one run.
            for place in (ahead, same):
                n = lies_at.get(place, -1) if place else -1
                if n >= 0 and their_keys[n] == key:
                    break
            else:
                n = first.get(key, -1)
            if n < 0:
                ahead = None
                continue
            theirs_at = theirs[n]
            ahead = theirs_at.file, theirs_at.offset + theirs_at.size_bytes
            yield window, theirs_at

    def layout(self, part_size_bytes: int) -> Layout:
        """Lay it out in parts of one size, carrying those that are not all there."""
        whole = plan_layout(self._files, part_size_bytes)
        offsets = [placed.offset for placed in whole.files]
        runs = _joined(
            sorted(
                (
                    _Run(offsets[o.file] + o.offset, o.size_bytes, t.file, t.offset)
                    for o, t in self._pairs
                ),
                key=lambda run: run.offset,
            )
        )
        end = max(placed.offset + placed.size_bytes for placed in whole.files)
        carried = bytearray(-(-end // part_size_bytes))
        for begin, stop in uncovered(whole.files, runs):
            for part in range(begin // part_size_bytes, (stop - 1) // part_size_bytes + 1):
                carried[part] = True
        kept = _joined(_cut_to_parts(runs, carried, part_size_bytes))
        if not kept:
            return whole
        count = sum(carried)
        padding = padded_parts(count * part_size_bytes, part_size_bytes) - count
        return Layout(
            part_size_bytes=part_size_bytes,
            part_count=len(carried) + padding,
            files=whole.files,
            base=self._base(kept),
        )

    def _base(self, runs: Sequence[_Run]) -> Base:
        used = sorted({run.file for run in runs})
        index = {file: n for n, file in enumerate(used)}
        return Base(
            manifest=self._known.manifest,
            files=tuple(self._known.names[file] for file in used),
            taken=tuple(
                Taken(
                    offset=run.offset,
                    size_bytes=run.size_bytes,
                    file=index[run.file],
                    file_offset=run.file_offset,
                )
                for run in runs
            ),
        )


def _joined(runs: Iterable[_Run]) -> list[_Run]:
    joined: list[_Run] = []
    for run in runs:
        if joined and joined[-1].goes_on_as(run):
            joined[-1] = joined[-1].with_(run)
        else:
            joined.append(run)
    return joined


def _cut_to_parts(
    runs: Iterable[_Run], carried: Sequence[int], part_size_bytes: int
) -> Iterator[_Run]:
    for run in runs:
        for part in range_of(run, part_size_bytes):
            if not carried[part]:
                yield run.cut(part * part_size_bytes, (part + 1) * part_size_bytes)


def _cut_in_parts(files: Sequence[SourceFile | File], part_size_bytes: int) -> Iterator[Window]:
    for index, file in enumerate(files):
        yield from cut_evenly(index, 0, file.size_bytes, part_size_bytes)


def _sizes(files: Iterable[SourceFile | File]) -> Iterator[tuple[str, int]]:
    return ((file.name, file.size_bytes) for file in files)
