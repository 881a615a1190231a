"""The content keys that a host keeps for restarts.  Protocol section 6, "Sealed".

Only where the quorum consented to it in the terms.  A key is kept as an object of the TPM that
opens in one boot state until its counter moves on.  Using it is `ops.unseal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from custody.encoding import MAX_STATEMENT_BYTES, Digest, Moment, Record, decode, encode
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.request import Request
from custody.keys.hostapi import RETAINED_INDEXES, HostTpm, RetainedKey
from custody.ops.folders import read_file, reading
from custody.ops.landing import disk_errors, replace_file
from custody.rules.request import golden_of
from custody.rules.situation import Situation

_MAX_BYTES = 1 << 16


class Kept(Record, frozen=True):
    """A key that this host keeps, and by which request it may."""

    kind: Literal["custody/kept/v1"]
    manifest: Digest
    request: Digest
    kept_at: Moment
    key: RetainedKey


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """The folder of kept keys in a host's home: of each manifest one, and the request beside it."""

    folder: Path

    def find(self, manifest: Digest) -> Kept:
        """Return what is kept of a manifest, or raise `Incomplete`."""
        found = self.all()
        for kept in found:
            if kept.manifest == manifest:
                return kept
        raise Incomplete(
            "this host keeps no key to this bundle",
            missing=[manifest],
            hint="ask for it anew: custody host request --mode sealed",
        )

    def all(self) -> tuple[Kept, ...]:
        """Return everything that is kept, oldest first."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with reading(path):
                found.append(decode(Kept, read_file(path, max_bytes=_MAX_BYTES)))
        return tuple(sorted(found, key=lambda kept: (kept.kept_at, kept.manifest)))

    def of_request(self, request: Digest) -> tuple[Kept, ...]:
        """Return what is kept by leave of one request."""
        return tuple(kept for kept in self.all() if kept.request == request)

    def request(self, kept: Kept) -> Statement[Request]:
        """Return the request whose terms let the key be kept."""
        path = self.folder / f"{kept.request}.request.dsse"
        with reading(path):
            statement = decode_statement(Request, read_file(path, max_bytes=MAX_STATEMENT_BYTES))
        if statement.digest != kept.request:
            raise Refused("is another request", check="retained.request", where=str(path))
        return statement

    def keep(self, kept: Kept, request: Statement[Request]) -> None:
        """Remember a key; the request is there first."""
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.folder / f"{kept.request}.request.dsse", encode(request.envelope))
        replace_file(self.folder / f"{kept.manifest}.json", encode(kept))

    def drop(self, kept: Kept) -> None:
        """Remove what is remembered of a key."""
        with disk_errors(self.folder):
            (self.folder / f"{kept.manifest}.json").unlink(missing_ok=True)
            (self.folder / f"{kept.request}.request.dsse").unlink(missing_ok=True)

    def free_index(self, manifest: Digest) -> int:
        """Return a counter's index for a manifest: its own from before, or one nobody uses."""
        kept = self.all()
        for one in kept:
            if one.manifest == manifest:
                return one.key.counter_index
        used = {one.key.counter_index for one in kept}
        free = next((index for index in RETAINED_INDEXES if index not in used), None)
        if free is None:
            raise Incomplete(
                f"this host keeps {len(kept)} keys already, and its TPM has no room for more",
                missing=[one.manifest for one in kept],
                hint="forget one: custody host forget MANIFEST",
            )
        return free


def retain(
    cek: bytes | bytearray,
    request: Statement[Request],
    *,
    tpm: HostTpm,
    keys: KeptKeys,
    situation: Situation,
) -> Kept:
    """Keep a content key as the terms of ``request`` allow; ``tpm`` is salted to the enrolled EK.

    What was kept of the same manifest before opens nothing more.
    """
    terms = request.predicate.terms
    if terms.mode != "sealed":
        raise Refused("the terms allow one opening only", check="retained.terms")
    key = tpm.retain(
        cek,
        pcrs=golden_of(request, situation).predicate.selection(),
        pcr_digest=bytes.fromhex(terms.pcr_digest),
        index=keys.free_index(terms.manifest),
    )
    kept = Kept(
        kind="custody/kept/v1",
        manifest=terms.manifest,
        request=request.digest,
        kept_at=situation.now,
        key=key,
    )
    keys.keep(kept, request)
    return kept


def forget(kept: Kept, tpm: HostTpm, keys: KeptKeys) -> int:
    """Move the counter on, after which no copy of the object opens, and drop what is kept here."""
    value = tpm.forget_retained(kept.key)
    keys.drop(kept)
    return value
