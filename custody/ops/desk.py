"""An enroller's desk: enrolment by messages, for hosts that ask a server.  formats/enrolling.md.

It is a home of its own inside the enroller's, and every state is a file in it, so a server that
is stopped anywhere goes on where it was:

::

    challenges/REQUEST.json   what tells the right answer             (ops/challenges)
    requests/REQUEST.json     whom it was made for
    onto/REQUEST.dsse         what other enrollers have signed
    waiting/REQUEST.json      answered rightly, and not signed yet
    records/REQUEST.dsse      signed
    unattended/EK.dsse        what was signed unattended of a TPM, for good
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from custody.encoding import Digest, KeyId, Moment, Record, decode, encode
from custody.errors import Incomplete, Refused
from custody.formats.enrolment import Answer, EnrolmentRecord, EnrolmentRequest
from custody.formats.envelope import Statement, decode_statement
from custody.formats.policy import TpmClass
from custody.ops.challenges import CHALLENGE_LIFE, CredentialMaker, forget, pose, use_up
from custody.ops.enroll import (
    check_vouching,
    differences,
    ek_digest,
    judge_request,
    namesakes,
    remember_lists,
    vouch,
)
from custody.ops.files import read_record
from custody.ops.folders import read_file, reading
from custody.ops.home import Home
from custody.ops.inventory import Inventory
from custody.ops.keys import Signer
from custody.ops.landing import replace_file
from custody.rules.enrolment import enrolment_seen
from custody.rules.situation import Situation
from custody.rules.verdicts import require

#: A host at a server answers at once.
ANSWER_LIFE = timedelta(minutes=10)
#: What was answered waits as long for its enroller as a challenge by files does for its answer.
WAITING_LIFE = CHALLENGE_LIFE
#: A host fetches its record soon; everybody has it by then.
RECORD_LIFE = timedelta(days=30)
#: Challenges open at a time: of one EK, whose certificate is no secret, and of all.
MAX_OPEN_OF_ONE_EK = 4
MAX_OPEN = 256
MAX_WAITING = 1024

_MAX_BYTES = 1 << 20
_REQUESTS, _ONTO, _WAITING, _RECORDS = "requests", "onto", "waiting", "records"
_UNATTENDED = "unattended"


class Asked(Record, frozen=True, kw_only=True):
    """A request, and when it came or was answered."""

    kind: Literal["custody/desk-request/v1"]
    request: EnrolmentRequest
    at: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an enroller goes by, read anew for each message."""

    situation: Situation
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattended:
    """Leave to sign at once for TPMs that the inventory lists with their host's name."""

    signer: Signer = field(repr=False)
    trust_class: TpmClass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskRules:
    """Who the enroller is, what he goes by, and whether he signs unattended.

    ``tell`` hears in words what happened, ``signed`` every record that was signed unattended.
    """

    challenger: KeyId
    standing: Callable[[], Standing]
    make_credential: CredentialMaker
    unattended: Unattended | None = None
    tell: Callable[[str], None] = field(default=lambda _: None)
    signed: Callable[[bytes], None] = field(default=lambda _: None)


class Desk:
    """Answers hosts in an enroller's name."""

    def __init__(self, enroller: Home, rules: DeskRules) -> None:
        """Open the desk in an enroller's home."""
        self.files = DeskFiles(enroller)
        self._enroller = enroller
        self._rules = rules
        # One at a time: a token signs one at a time anyway, and limits are counted.
        self._one = threading.Lock()

    def receive(self, body: bytes, /) -> bytes:
        """Judge a host's request and challenge its TPM; returns the challenge."""
        request = decode(EnrolmentRequest, body, max_bytes=_MAX_BYTES)
        standing = self._rules.standing()
        self._check(request, standing)
        remember_lists(self._enroller, request, standing.situation)
        now = standing.situation.now
        with self._one:
            self.files.sweep(now)
            self._check_room(request)
            self.files.put(_REQUESTS, request, at=now)
            challenge = pose(
                self.files.home,
                request,
                challenger=self._rules.challenger,
                make_credential=self._rules.make_credential,
                now=now,
            )
        self._rules.tell(f"{request.host}: challenged")
        return encode(challenge)

    def attach(self, request: Digest, body: bytes, /) -> None:
        """Take the record that other enrollers have signed, for a challenge that is open."""
        record = decode_statement(EnrolmentRecord, body)
        with self._one:
            asked = self._open(request)
            if record.predicate.ak_public != asked.request.ak_public:
                raise Refused("the record is of another AK", check="enrolment.record")
            replace_file(self.files.path(_ONTO, request), body)

    def answer(self, request: Digest, body: bytes, /) -> bytes | None:
        """Judge an answer, which uses the challenge up; returns the record if it is signed now."""
        given = decode(Answer, body, max_bytes=_MAX_BYTES)
        standing = self._rules.standing()
        now = standing.situation.now
        with self._one:
            asked = self._open(request)
            self._check(asked.request, standing)
            use_up(
                self.files.home,
                request,
                given,
                challenger=self._rules.challenger,
                now=now,
                life=ANSWER_LIFE,
            )
            self.files.put(_WAITING, asked.request, at=now)
            self.files.drop(_REQUESTS, request)
            if self._rules.unattended is None:
                self._rules.tell(f"{asked.request.host}: waits for a signature, {request}")
                return None
            try:
                signed = self.files.sign(
                    request,
                    signer=self._rules.unattended.signer,
                    standing=standing,
                    trust_class=self._rules.unattended.trust_class,
                )
            except Refused:
                # What is refused now waits for nobody.
                self.files.turn_away(request)
                raise
            # Before it is given out, whose copy comes to the enroller's files when it pleases.
            replace_file(self.files.path(_UNATTENDED, ek_digest(asked.request)), signed)
        self._rules.tell(f"{asked.request.host}: signed")
        self._rules.signed(signed)
        return signed

    def fetch(self, request: Digest, /) -> bytes | None:
        """Return the signed record, None while it waits for a person."""
        signed = self.files.record(request)
        if signed is None and self.files.get(_WAITING, request) is None:
            raise _nothing()
        return signed

    def _check(self, request: EnrolmentRequest, standing: Standing) -> None:
        unattended = self._rules.unattended
        if unattended is None:
            require(
                judge_request(request, situation=standing.situation, inventory=standing.inventory)
            )
            return
        check_vouching(
            request,
            signer=unattended.signer,
            situation=standing.situation,
            inventory=standing.inventory,
            trust_class=unattended.trust_class,
        )
        # Unattended there is nobody who knows which machine this should be, but the inventory.
        if standing.inventory.get(ek_digest(request)) is None:
            raise Refused(
                "the inventory does not say whose TPM this is",
                check="enrolment.name",
                hint="write the host's name behind the digest, or sign attended",
            )
        if namesakes(request, standing.situation):
            raise Refused(
                f"another TPM is {request.host}",
                check="enrolment.name",
                hint="retire the host that was, or sign attended",
            )
        seen = enrolment_seen(ek_digest(request), standing.situation)
        if seen.epoch or seen.retired or self.files.has_signed_another(request):
            raise Refused(
                "this TPM was enrolled before: what has changed since is for a person to say",
                check="enrolment.again",
                hint="the enroller signs attended, or by files",
            )

    def _check_room(self, request: EnrolmentRequest) -> None:
        opened = [asked.request for asked in self.files.all(_REQUESTS)]
        same = sum(other.ek_certificate == request.ek_certificate for other in opened)
        again = any(other.digest() == request.digest() for other in opened)
        waiting = sum(1 for _ in self.files.names(_WAITING))
        if (same >= MAX_OPEN_OF_ONE_EK and not again) or (
            len(opened) >= MAX_OPEN or waiting >= MAX_WAITING
        ):
            raise Incomplete(
                "too many challenges are open",
                missing=("an answer to one of them",),
                hint=f"unanswered ones end after {ANSWER_LIFE.seconds // 60} minutes",
            )

    def _open(self, request: Digest) -> Asked:
        asked = self.files.get(_REQUESTS, request)
        if asked is None:
            raise _nothing()
        return asked


class DeskFiles:
    """What a desk keeps, for its server and for the enroller who signs."""

    def __init__(self, enroller: Home) -> None:
        self.home = Home(enroller.folder("desk"), role="enroller")

    def waiting(self) -> tuple[Asked, ...]:
        """Return what was answered rightly and is not signed yet."""
        return tuple(self.all(_WAITING))

    def sign(
        self,
        request: Digest,
        *,
        signer: Signer,
        standing: Standing,
        trust_class: TpmClass,
    ) -> bytes:
        """Vouch for a host that has answered rightly; returns the record (``.dsse``)."""
        asked = self.get(_WAITING, request)
        if asked is None:
            raise _nothing()
        now = standing.situation.now
        if not asked.at <= now <= asked.at + WAITING_LIFE:
            raise Refused("the answer is too old", check="enrolment.activation")
        signed = vouch(
            asked.request,
            signer=signer,
            situation=standing.situation,
            inventory=standing.inventory,
            trust_class=trust_class,
            onto=self._onto(request),
        )
        path = self.path(_RECORDS, request)
        replace_file(path, signed)
        os.utime(path, (now.timestamp(), now.timestamp()))
        self.drop(_WAITING, request)
        self.drop(_ONTO, request)
        return signed

    def turn_away(self, request: Digest) -> None:
        """Forget a host that has answered; it may ask again."""
        if self.get(_WAITING, request) is None:
            raise _nothing()
        self.drop(_WAITING, request)
        self.drop(_ONTO, request)

    def record(self, request: Digest) -> bytes | None:
        """Return a signed record."""
        path = self.path(_RECORDS, request)
        return read_file(path, max_bytes=_MAX_BYTES) if path.exists() else None

    def has_signed_another(self, request: EnrolmentRequest) -> bool:
        """Whether this TPM was signed unattended with another AK, firmware or name."""
        path = self.path(_UNATTENDED, ek_digest(request))
        if not path.exists():
            return False
        with reading(path):
            record = decode_statement(EnrolmentRecord, read_file(path, max_bytes=_MAX_BYTES))
        return bool(differences(record.predicate, request))

    def put(self, folder: str, request: EnrolmentRequest, *, at: datetime) -> None:
        """Keep a request."""
        asked = Asked(kind="custody/desk-request/v1", request=request, at=at)
        replace_file(self.path(folder, request.digest()), encode(asked))

    def get(self, folder: str, request: Digest) -> Asked | None:
        """Return a request that is kept."""
        path = self.path(folder, request)
        if not path.exists():
            return None
        return read_record(Asked, path)

    def all(self, folder: str) -> Iterator[Asked]:
        """Return every request that is kept, the oldest names first."""
        for name in self.names(folder):
            asked = self.get(folder, name)
            if asked is not None:
                yield asked

    def names(self, folder: str) -> Iterator[Digest]:
        """Name every request that is kept."""
        for path in sorted(self.home.folder(folder).glob("*.json")):
            yield path.stem

    def drop(self, folder: str, request: Digest) -> None:
        """Forget one."""
        self.path(folder, request).unlink(missing_ok=True)

    def path(self, folder: str, request: Digest) -> Path:
        """Say where something is kept."""
        suffix = "dsse" if folder in (_ONTO, _RECORDS, _UNATTENDED) else "json"
        return self.home.folder(folder) / f"{request}.{suffix}"

    def sweep(self, now: datetime) -> None:
        """Forget what came to nothing."""
        for asked in self.all(_REQUESTS):
            if now - asked.at > ANSWER_LIFE:
                forget(self.home, asked.request.digest())
                self.drop(_ONTO, asked.request.digest())
                self.drop(_REQUESTS, asked.request.digest())
        for asked in self.all(_WAITING):
            if now - asked.at > WAITING_LIFE:
                self.turn_away(asked.request.digest())
        for path in self.home.folder(_RECORDS).glob("*.dsse"):
            if now.timestamp() - path.stat().st_mtime > RECORD_LIFE.total_seconds():
                path.unlink(missing_ok=True)

    def _onto(self, request: Digest) -> Statement[EnrolmentRecord] | None:
        path = self.path(_ONTO, request)
        if not path.exists():
            return None
        with reading(path):
            return decode_statement(EnrolmentRecord, read_file(path, max_bytes=_MAX_BYTES))


def _nothing() -> Incomplete:
    return Incomplete(
        "no challenge is open for this request, and nothing waits",
        missing=("a request that was challenged here",),
        hint="each challenge is good for one answer, for a few minutes; ask again",
    )
