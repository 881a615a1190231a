"""Open a release into the memory of one process, with nothing written.  Protocol section 6, "Host".

The way to the content key is `ops.open`'s.  Then the receipt is written and the request burnt,
before the first byte is read: from there on the key is in this process and nowhere else, and what
comes after can no longer ask the TPM for it.  Formats: receipt.md, parts.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.keys.hostapi import HostTpm
from custody.ops.bundle import Bundle
from custody.ops.landing import replace_file
from custody.ops.open import Opened, check_not_landed, opened_receipt, unlocked
from custody.ops.reader import Reader, open_reader
from custody.ops.receipts import HostPlace, burn
from custody.rules.situation import Situation

#: The receipt's reason.  It is empty where the model was written to a disk, and verified whole.
READ_IN_MEMORY = "read in memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """A released bundle that this process can read, and what opening it came to."""

    reader: Reader
    opened: Opened


@contextmanager
def unlock_release(
    bundle: Bundle,
    request: Statement[Request],
    *,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    files: Sequence[str] = (),
    base: Path | None = None,
    workers: int | None = None,
) -> Iterator[InMemory]:
    """Give a reader of ``bundle`` for the block; its key is wiped when the block ends.

    The approvals are spent when the block begins: a process that ends must ask again.  ``files``
    are names that must be in the bundle, ``Refused("file.name")`` otherwise, which like every
    other refusal spends nothing; ``base`` is the directory of the model that a delta is to.  Parts
    are verified when they are read; a bad one is refused then, and may be replaced by a good copy
    while the block lasts.  Raises as `open_release` does.
    """
    entry = place.find(request.digest)
    check_not_landed(entry, place)
    with unlocked(bundle, request, entry, situation=situation, tpm=tpm, site=place.site) as key:
        reader = open_reader(bundle, key.contents, key.cek, base=base, workers=workers)
    with reader:
        for name in files:
            reader.file(name)
        receipt = opened_receipt(key, tpm, situation, reason=READ_IN_MEMORY)
        # As with opening to disk: the receipt first.  If we die between the two, H still lives and
        # the same approvals do once more, for somebody who got nothing.
        replace_file(place.receipt_path(request.digest), receipt, mode=0o644)
        burnt = burn(entry, tpm, place, now=situation.now)
        yield InMemory(reader=reader, opened=key.opened(receipt, burnt))
