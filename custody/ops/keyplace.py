"""What a host without a TPM keeps of its requests: what it asked, where it opens, how that ended.

A TPM opens nothing twice, whatever lies on a disk.  An HSM does; that a request is opened
once rests on these files, and on one process at a time being at it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custody.encoding import Digest, encode, format_time
from custody.errors import Refused
from custody.formats.envelope import Statement
from custody.formats.keyrequest import KeyReceipt, KeyRequest
from custody.formats.manifest import Manifest
from custody.ops.folders import read_file, read_statement_file
from custody.ops.landing import disk_errors, give_up, replace_file, unfinished_output
from custody.ops.released import judge_answers
from custody.rules.release import Judgement
from custody.rules.situation import Situation

_MAX_PATH_BYTES = 1 << 16
_ASKED = ".keyrequest.dsse"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Two folders of a host's home: ``asked`` of requests by keys in an HSM, and its receipts."""

    asked: Path
    receipts: Path

    def receipt_path(self, request: Digest) -> Path:
        """Return where the receipt of a request is kept."""
        return self.receipts / f"{request}.keyreceipt.dsse"

    def request_path(self, request: Digest) -> Path:
        """Return where a request is kept."""
        return self.asked / f"{request}{_ASKED}"

    def known(self) -> tuple[Digest, ...]:
        """Name every request this host remembers anything of."""
        asked = {path.name.removesuffix(_ASKED) for path in self.asked.glob(f"[!.]*{_ASKED}")}
        ended = {
            path.name.partition(".")[0] for path in self.receipts.glob("[!.]*.keyreceipt.dsse")
        }
        return tuple(sorted(asked | ended))

    def remember(self, request: Statement[KeyRequest], manifest: Statement[Manifest]) -> None:
        """Remember a request before it leaves the host, and whose consents it will take."""
        self._make()
        replace_file(self._manifest_path(manifest.digest), encode(manifest.envelope))
        replace_file(self.request_path(request.digest), encode(request.envelope))

    def receipt(self, request: Digest) -> Statement[KeyReceipt] | None:
        """Return how a request ended, if it did."""
        path = self.receipt_path(request)
        return read_statement_file(KeyReceipt, path) if path.exists() else None

    def unfinished(self, request: Digest) -> Path | None:
        """Return where an opening that stopped half way was to appear, if one did."""
        target = self._target(request)
        left = None if target is None else unfinished_output(target, request[:16])
        return None if left is None else target

    @contextmanager
    def alone(self, request: Digest) -> Iterator[None]:
        """Let no other process open a request, or give it up, while the block runs.

        One that tries is `Refused` (``host.busy``): an opening can take hours.
        """
        self._make()
        with disk_errors(self.asked):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            # It stays where it is: who removes a lock's file lets two others lock one each.
            lock = os.open(self.asked / f"{request}.lock", flags, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    "another process is opening this request, or giving it up",
                    check="host.busy",
                    where=f"request {request[:16]}",
                    hint="let it end: a request is opened once",
                ) from error
            yield
        finally:
            os.close(lock)

    def check_not_ended(self, request: Digest, target: Path | None = None) -> None:
        """Refuse a request that has its receipt (``host.ended``).

        Killed between the receipt and the model, a run left what the next one goes on from: at its
        own ``target`` alone, or what lies unfinished at another one would be a second opening.
        """
        receipt = self.receipt(request)
        if receipt is None:
            return
        said = receipt.predicate
        if said.outcome == "opened" and target is not None:
            wanted, unfinished = target.absolute(), self.unfinished(request)
            if unfinished is not None and unfinished == wanted:
                return
        how = "was opened" if said.outcome == "opened" else "was given up"
        raise ended(request, f"{how} at {format_time(said.finished_at)}")

    def begin(self, request: Digest, target: Path) -> None:
        """Remember where a request is being opened to, before any of it is.

        What a run left at another place is removed: plaintext that nobody would go on with.
        """
        if self._target(request) == target.absolute():
            return
        self.leave(request)
        replace_file(self._note(request), os.fsencode(target.absolute()))

    def take_back(self, request: Digest) -> None:
        """Remember no longer what this run wrote, unseen: the opening came to nothing."""
        with disk_errors(self.receipts):
            self.receipt_path(request).unlink(missing_ok=True)

    def leave(self, request: Digest) -> None:
        """Remove what was opened half way, and forget where: no run goes on with it any more."""
        target = self._target(request)
        if target is not None:
            give_up(target, request[:16])
        with disk_errors(self.asked):
            self._note(request).unlink(missing_ok=True)

    def all(self) -> tuple[Statement[KeyRequest], ...]:
        """Return every request that was asked from here, oldest first."""
        paths = sorted(self.asked.glob(f"[!.]*{_ASKED}"))
        found = [read_statement_file(KeyRequest, path) for path in paths]
        return tuple(sorted(found, key=lambda r: (r.predicate.requested_at, r.digest)))

    def manifest(self, request: Statement[KeyRequest]) -> Statement[Manifest]:
        """Return the manifest that was asked for."""
        return read_statement_file(Manifest, self._manifest_path(request.predicate.terms.manifest))

    def _make(self) -> None:
        for folder in (self.asked, self.receipts):
            with disk_errors(folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _target(self, request: Digest) -> Path | None:
        note = self._note(request)
        if not note.exists():
            return None
        return Path(os.fsdecode(read_file(note, max_bytes=_MAX_PATH_BYTES)))

    def _note(self, request: Digest) -> Path:
        return self.asked / f"{request}.target"

    def _manifest_path(self, manifest: Digest) -> Path:
        return self.asked / f"{manifest}.manifest.dsse"


def ended(request: Digest, how: str) -> Refused:
    """Make the refusal of a request that has its receipt."""
    named = request[:16]
    return Refused(
        how,
        check="host.ended",
        where=f"request {named}",
        hint=f"custody host receipt {named} --out FILE copies its receipt",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStanding:
    """Where one request by a key in an HSM stands.

    ``unfinished`` is where an opening that stopped half way was to appear; ``judgement`` is by the
    answers at hand, None where nobody asked for one or the request has ended.
    """

    request: Statement[KeyRequest]
    receipt: Statement[KeyReceipt] | None
    unfinished: Path | None
    judgement: Judgement | None


def standings_by_key(place: KeyPlace, situation: Situation | None) -> tuple[KeyStanding, ...]:
    """Say of every request where it stands, oldest first; changes nothing and needs no key."""
    found = []
    for request in place.all():
        receipt = place.receipt(request.digest)
        judged = None
        if receipt is None and situation is not None:
            judged = judge_answers(place.manifest(request), request, situation)
        found.append(
            KeyStanding(
                request=request,
                receipt=receipt,
                unfinished=place.unfinished(request.digest),
                judgement=judged,
            )
        )
    return tuple(found)
