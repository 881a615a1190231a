"""The content keys that a host keeps for restarts.  Protocol section 6, "Sealed".

Only where the quorum consented to it in the terms.  A key is kept as an object of the TPM that
opens in one boot state, or in that and those that enrollers authorise later, until its counter
moves on.  Using it is `ops.unseal`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from custody.crypto import shamir
from custody.crypto.secret import wipe
from custody.crypto.tpmretained import Line
from custody.encoding import Digest, Moment, Record, TpmName, encode
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Statement
from custody.formats.evidence import name
from custody.formats.goldenset import GoldenSet
from custody.formats.request import U32, Request, Terms
from custody.keys.hostapi import (
    MAX_EK_SPKI_BYTES,
    RETAINED_INDEXES,
    HostTpm,
    RetainedKey,
    RetainedUpdates,
    ShareOfKey,
    Updating,
)
from custody.ops.files import read_record
from custody.ops.folders import read_file, read_statement_file
from custody.ops.landing import disk_errors, give_up, replace_file
from custody.rules.authorisers import Authoriser, authorisers
from custody.rules.request import endorsement_key, enrolment_of, golden_of
from custody.rules.situation import Situation

#: 33 objects of a few hundred bytes each, in base64, and the keys of 32 enrollers.
_MAX_BYTES = 1 << 18
_MAX_PATH_BYTES = 1 << 16


class Kept(Record, frozen=True):
    """A key that this host keeps, by which request it may, and in which TPM it lies.

    ``endorsement_key`` is that TPM's, as it was enrolled (DER SPKI).  ``ending`` is the counter of
    the object that this one replaced, until it has moved on.
    """

    kind: Literal["custody/kept/v1"]
    manifest: Digest
    request: Digest
    ak_name: TpmName
    endorsement_key: Annotated[bytes, msgspec.Meta(max_length=MAX_EK_SPKI_BYTES)]
    kept_at: Moment
    key: RetainedKey
    ending: U32 | None


class KeptKeys(msgspec.Struct, frozen=True):
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
            hint="ask for it anew: custody host request --mode",
        )

    def all(self) -> tuple[Kept, ...]:
        """Return everything that is kept, oldest first."""
        paths = sorted(self.folder.glob("*.json"))
        found = [read_record(Kept, path, max_bytes=_MAX_BYTES) for path in paths]
        return tuple(sorted(found, key=lambda kept: (kept.kept_at, kept.manifest)))

    def of_request(self, request: Digest) -> tuple[Kept, ...]:
        """Return what is kept by leave of one request."""
        return tuple(kept for kept in self.all() if kept.request == request)

    def request(self, kept: Kept) -> Statement[Request]:
        """Return the request whose terms let the key be kept."""
        path = self._request_path(kept.request)
        statement = read_statement_file(Request, path)
        if statement.digest != kept.request:
            raise Refused("is another request", check="retained.request", where=str(path))
        return statement

    def keep(self, kept: Kept, request: Statement[Request]) -> None:
        """Remember a key; the request is there first, and that of the key it replaces goes."""
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = {other.request for other in self.all() if other.manifest == kept.manifest}
        replace_file(self._request_path(kept.request), encode(request.envelope))
        replace_file(self.folder / f"{kept.manifest}.json", encode(kept))
        self._drop_requests(before - {kept.request})

    def begin(self, kept: Kept, target: Path) -> None:
        """Remember where a bundle is being unsealed to, before any of it is."""
        if self._target(kept) != target.absolute():
            self._give_up(kept)
            replace_file(self._note(kept), os.fsencode(target.absolute()))

    def landed(self, kept: Kept) -> None:
        """Forget where: it is there, whole, and no longer hidden."""
        with disk_errors(self.folder):
            self._note(kept).unlink(missing_ok=True)

    def drop(self, kept: Kept) -> None:
        """Remove what is remembered of a key, and what was unsealed by it half way."""
        self._give_up(kept)
        with disk_errors(self.folder):
            (self.folder / f"{kept.manifest}.json").unlink(missing_ok=True)
        self._drop_requests({kept.request})

    def _drop_requests(self, requests: set[Digest]) -> None:
        with disk_errors(self.folder):
            for request in requests:
                self._request_path(request).unlink(missing_ok=True)

    def _give_up(self, kept: Kept) -> None:
        target = self._target(kept)
        if target is not None:
            give_up(target, unsealing_key(kept))
        self.landed(kept)

    def _target(self, kept: Kept) -> Path | None:
        note = self._note(kept)
        if not note.exists():
            return None
        return Path(os.fsdecode(read_file(note, max_bytes=_MAX_PATH_BYTES)))

    def _note(self, kept: Kept) -> Path:
        return self.folder / f"{kept.manifest}.target"

    def _request_path(self, request: Digest) -> Path:
        return self.folder / f"{request}.request.dsse"

    def free_index(self, manifest: Digest, ak_name: TpmName) -> int:
        """Return a counter's index in a TPM for a manifest: its own, or one nobody uses."""
        kept = [one for one in self.all() if one.ak_name == ak_name]
        for one in kept:
            if one.manifest == manifest:
                return one.key.counter_index
        free = self.spare_index(ak_name)
        if free is None:
            raise Incomplete(
                f"this host keeps {len(kept)} keys already, and its TPM has no room for more",
                missing=[one.manifest for one in kept],
                hint="forget one: custody host forget MANIFEST",
            )
        return free

    def spare_index(self, ak_name: TpmName) -> int | None:
        """Return a counter's index that nothing kept in a TPM uses, if there is one."""
        kept = [one for one in self.all() if one.ak_name == ak_name]
        used = {one.key.counter_index for one in kept} | {one.ending for one in kept}
        return next((index for index in RETAINED_INDEXES if index not in used), None)


def unsealing_key(kept: Kept) -> str:
    """Return what unfinished unsealing is bound to (`landing.resumable_directory`)."""
    return kept.manifest[:16]


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
    if not terms.keeps_key:
        raise Refused("the terms allow one opening only", check="retained.terms")
    golden = golden_of(request, situation).predicate
    index = _free_index(keys, terms, tpm)
    updating = _updating(cek, golden, situation) if terms.mode == "sealed-updatable" else None
    pcr_digest = bytes.fromhex(terms.pcr_digest)
    with _wiped(updating):
        key = tpm.retain(
            cek,
            pcrs=golden.selection(),
            pcr_digest=pcr_digest,
            index=index,
            updating=updating,
        )
    kept = Kept(
        kind="custody/kept/v1",
        manifest=terms.manifest,
        request=request.digest,
        ak_name=terms.ak_name,
        endorsement_key=endorsement_key(enrolment_of(request, situation).predicate),
        kept_at=situation.now,
        key=key,
        ending=None,
    )
    keys.keep(kept, request)
    return kept


def _updating(cek: bytes | bytearray, golden: GoldenSet, situation: Situation) -> Updating:
    """Split a key among the enrollers of the policy in force, which the terms name."""
    policy = situation.trusted.policy
    line = Line(
        environment=bytes.fromhex(situation.trusted.genesis),
        name=golden.name,
        epoch=golden.epoch,
    )
    return _split(cek, authorisers(policy), policy.thresholds.golden, line)


def _split(
    cek: bytes | bytearray, people: Sequence[Authoriser], needed: int, line: Line
) -> Updating:
    """Split a key; too few people to put it together again get nothing."""
    shares = shamir.split(cek, needed, len(people)) if len(people) >= needed else ()
    return Updating(
        line=line,
        needed=needed,
        shares=tuple(
            ShareOfKey(principal=one.principal, keys=one.keys, share=share)
            for one, share in zip(people, shares, strict=False)
        ),
    )


@contextmanager
def _wiped(updating: Updating | None) -> Iterator[None]:
    try:
        yield
    finally:
        wipe(*(each.share for each in (updating.shares if updating else ())))


def drop_leavers(
    kept: Kept,
    cek: bytes | bytearray,
    *,
    tpm: HostTpm,
    keys: KeptKeys,
    situation: Situation,
) -> Kept:
    """Take the shares of enrollers who left, and of keys they lost, from them for good.

    The key is sealed anew without them, for the same states and epochs, and what was sealed before
    is ended.  Nobody is added, and the threshold only grows: the officers consented to the
    enrollers of the policy that the terms name.  With no counter free it stays as it is.
    """
    kept = _end(kept, tpm, keys)
    updates = kept.key.updates
    if updates is None:
        return kept
    staying = _staying(updates, situation)
    needed = max(updates.needed, situation.trusted.policy.thresholds.golden)
    there = tuple(Authoriser(principal=one.principal, keys=one.keys) for one in updates.shares)
    spare = keys.spare_index(kept.ak_name)
    if spare is None or (staying, needed) == (there, updates.needed):
        return kept
    oldest = tpm.retained_standing(kept.key).oldest
    updating = _split(cek, staying, needed, updates.line)
    with _wiped(updating):
        key = tpm.retain(
            cek,
            pcrs=kept.key.pcrs,
            pcr_digest=bytes.fromhex(kept.key.pcr_digest),
            index=spare,
            updating=updating,
        )
    # Before it is kept: what was retired stays so.
    tpm.raise_epoch(key, oldest or updates.epoch)
    anew = msgspec.structs.replace(kept, key=key, ending=kept.key.counter_index)
    keys.keep(anew, keys.request(kept))
    return _end(anew, tpm, keys)


def _staying(updates: RetainedUpdates, situation: Situation) -> tuple[Authoriser, ...]:
    """Return who of those with a share is an authoriser still, and by which of the same keys."""
    now = {one.principal: one.keys for one in authorisers(situation.trusted.policy)}
    found = []
    for share in updates.shares:
        left = tuple(key for key in share.keys if key in now.get(share.principal, ()))
        if left:
            found.append(Authoriser(principal=share.principal, keys=left))
    return tuple(found)


def _end(kept: Kept, tpm: HostTpm, keys: KeptKeys) -> Kept:
    """Move on the counter of what this key replaced; an interrupted run left that to do."""
    if kept.ending is None:
        return kept
    if tpm.retained_standing(kept.key).life != "cleared":
        tpm.increment(kept.ending)
    ended = msgspec.structs.replace(kept, ending=None)
    keys.keep(ended, keys.request(kept))
    return ended


def _free_index(keys: KeptKeys, terms: Terms, tpm: HostTpm) -> int:
    try:
        return keys.free_index(terms.manifest, terms.ak_name)
    except Incomplete:
        # What died without being forgotten here (a TPM that was cleared) needs no counter.
        if not prune(tpm, keys):
            raise
        return keys.free_index(terms.manifest, terms.ak_name)


def forget(
    kept: Kept, tpm: HostTpm, keys: KeptKeys, *, tell: Callable[[], None] | None = None
) -> int:
    """Move the counter on, after which no copy of the object opens, and drop what is kept here.

    ``tell`` is called in between: where it raises, the key is dead, and this can be repeated.

    Another TPM than the one that keeps it is `Refused`: it would say forgotten of what still opens.
    """
    # Whoever sits on the bus with a TPM of his own would be shown the owner's authorisation in an
    # HMAC that he can guess it by, and could answer that it was done.
    tpm = tpm.salted_to(kept.endorsement_key)
    if not _is_here(kept, tpm):
        raise Refused(
            "this is not the TPM that keeps it",
            check="retained.tpm",
            where=str(keys.folder / f"{kept.manifest}.json"),
            hint="only that TPM can forget it; if it is gone, delete the file",
        )
    value = tpm.forget_retained(_end(kept, tpm, keys).key)
    if tell is not None:
        tell()
    keys.drop(kept)
    return value


def prune(tpm: HostTpm, keys: KeptKeys) -> tuple[Kept, ...]:
    """Drop what is remembered of keys that open nothing more; return them.

    Only what this very TPM says it forgot, or lost: what another keeps is not its to judge.
    """
    dead = tuple(kept for kept in keys.all() if _dead(kept, tpm))
    for kept in dead:
        keys.drop(kept)
    return dead


def _dead(kept: Kept, tpm: HostTpm) -> bool:
    own = tpm.salted_to(kept.endorsement_key)
    return _is_here(kept, own) and own.retained_standing(kept.key).life != "alive"


def _is_here(kept: Kept, own: HostTpm) -> bool:
    """Whether the TPM, salted to the EK that keeps it, is the one that keeps it."""
    try:
        return kept.ak_name == name(own.ak_public()).hex()
    except Refused as error:
        if error.check == "tpm.ek":
            return False
        raise
