"""Holding a ceremony: one step of a script after the other, each on record before the next.

A step that was interrupted is done again from its beginning.  What it had made is kept where a home
knows of it (`ops.admit`, `ops.authority`); a key that nothing knows of stays in its token and is
listed as found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from custody.encoding import Digest
from custody.errors import CustodyError, Refused
from custody.formats.ceremony import Seat, Step
from custody.formats.envelope import Signature
from custody.formats.keybackup import WRAPPING_LABEL, wrapping_id
from custody.formats.transcript import (
    Begun,
    CeremonyRecord,
    Closed,
    Done,
    FoundObject,
    MadeKey,
    NamedFile,
    UsedToken,
)
from custody.keys.api import KeyRole, Token
from custody.keys.audit import HeldObject
from custody.keys.wrapapi import wrapping_of
from custody.ops.ceremony_place import Hands, NewKey, Outcome
from custody.ops.ceremony_steps import do_step, words_of
from custody.ops.keys import Signer
from custody.ops.table import Table
from custody.ops.transcript import HeldScript, Transcript, begin, going_on
from custody.rules.ceremony import (
    Progress,
    kind_of,
    labels_of,
    missing_keys,
    plain,
    unexpected,
)
from custody.rules.transcript import who_signs


def hold(held: HeldScript, folder: Path, table: Table, *, beside: Path) -> Digest:
    """Hold a ceremony, or go on with one that was interrupted; return its last record's digest.

    ``folder`` is where all of it is written, ``beside`` where the script's other files lie.
    """
    if not folder.exists():
        # A token that is not there would leave a folder with nothing in it to be moved away.
        first = next((hand for step in held.script.steps for hand in step.hands), None)
        if first is not None:
            table.token(held.script.seat(first))
        begin(held, folder, now=table.now())
    with going_on(held, folder) as transcript:
        ceremony = _Ceremony(transcript, table, beside)
        while (done := transcript.progress.done) < len(held.script.steps):
            ceremony.do(done)
        ceremony.close()
        return transcript.lines[-1].digest


class _Ceremony:
    """One run of a ceremony."""

    def __init__(self, transcript: Transcript, table: Table, beside: Path) -> None:
        self._transcript = transcript
        self._script = transcript.held.script
        self._table = table
        self._beside = beside

    def do(self, done: int) -> None:
        """Do one step."""
        step, steps = self._script.steps[done], len(self._script.steps)
        self._table.show((f"step {done + 1} of {steps}: {words_of(self._script, step)}",))
        self._table.confirm("do it?")
        self._append(Begun(step=done + 1), ())
        hands = _Hands(self._transcript.progress, self._table, step, self._transcript)
        with _naming(f"step {done + 1}"):
            outcome = do_step(
                step,
                held=self._transcript,
                table=self._table,
                hands=hands,
                beside=self._beside,
            )
            self._tell(outcome)
            self._table.confirm("has everybody seen and heard this?")
            event = Done(
                step=done + 1,
                do=kind_of(step),
                asked=self._table.asks,
                tokens=tuple(hands.used[name] for name in step.hands),
                found=tuple(item for name in step.hands for item in hands.found[name]),
                keys=hands.made(outcome),
                attested=tuple(outcome.attested),
                files=tuple(
                    NamedFile(name=name, sha256=digest)
                    for name, digest in sorted(outcome.files.items())
                ),
                told=tuple(outcome.told),
                said=tuple(outcome.said),
            )
            progress = self._transcript.progress
            self._append(event, who_signs(self._script, progress, event)[::-1])

    def close(self) -> None:
        """Write the last record, and have everybody sign it who has not."""
        progress = self._transcript.progress
        if not progress.closed:
            files = tuple(
                NamedFile(name=name, sha256=digest)
                for name, digest in sorted(progress.files.items())
            )
            self._append(Closed(policy=progress.policy, files=files), ())
        last = self._transcript.lines[-1]
        lacking = [
            name
            for name in progress.signers
            if (key := progress.signing_key(name)) is not None
            and key.key_id not in {signature.keyid for signature in last.signatures}
        ]
        if not lacking:
            raise Refused(
                "this ceremony is over",
                check="ceremony.over",
                where=str(self._transcript.folder),
                hint="custody auditor verify-ceremony judges it",
            )
        self._table.show((f"everybody signs the last record: {', '.join(lacking)}",))
        self._table.speak("the last record", last.digest)
        self._table.confirm("sign it?")
        # Whose token was used last need not be asked for again.
        hands = self._script.steps[-1].hands
        for name in sorted(lacking, key=lambda name: name not in hands[-1:]):
            signature = self._sign(name, last.record, progress)
            self._transcript.sign_last(signature)

    def _append(self, event: Begun | Done | Closed, signers: Sequence[str]) -> None:
        record = self._transcript.record(event, now=self._table.now())
        after = self._transcript.progress
        after.take(event)
        self._transcript.append(record, [self._sign(name, record, after) for name in signers])

    def _sign(self, name: str, record: CeremonyRecord, progress: Progress) -> Signature:
        key = progress.signing_key(name)
        if key is None:
            raise AssertionError("internal: nobody signs who has no key")
        token = self._table.token(self._script.seat(name))
        return Signer(token.find(KeyRole.SIGN, key_id=key.key_id)).signature(record)

    def _tell(self, outcome: Outcome) -> None:
        self._table.show([f"  {line}" for line in outcome.said])
        for told in outcome.told:
            self._table.speak(told.what, told.digest)


@contextmanager
def _naming(step: str) -> Iterator[None]:
    """Say in which step something went wrong, where nothing better is known."""
    try:
        yield
    except CustodyError as error:
        error.where = error.where or step
        raise


class _Hands(Hands):
    """The tokens of one step: each looked into once, before it is used."""

    def __init__(
        self, progress: Progress, table: Table, step: Step, transcript: Transcript
    ) -> None:
        self._progress = progress
        self._table = table
        self._step = step
        self._script = transcript.held.script
        self._names = transcript.held.tokens
        self.used: dict[str, UsedToken] = {}
        self.found: dict[str, tuple[FoundObject, ...]] = {}

    def take(self, name: str) -> Token:
        """Return somebody's token; `Refused` where something is in it that nobody expects."""
        seat = self._script.seat(name)
        token = self._table.token(seat)
        if name not in self.used:
            with token.session():
                found = tuple(_found(name, item) for item in self._table.objects(seat))
            self._check(seat, _used(name, token), found)
            self.found[name] = found
            self.used[name] = _used(name, token)
        return token

    def _check(self, seat: Seat, token: UsedToken, found: Sequence[FoundObject]) -> None:
        where = f"token {token.label}"
        known = self._progress.tokens.get(seat.name)
        if known is not None and known.identity != token.identity:
            raise Refused(
                f"is not the token that {seat.name} began with, serial {known.serial}",
                check="ceremony.token",
                where=where,
            )
        for other, theirs in self._progress.tokens.items():
            if other != seat.name and theirs.identity == token.identity:
                raise Refused(f"is {other}'s token", check="ceremony.token", where=where)
        if not self._names[seat.name].names(token):
            raise Refused("is not the token that the script names", check="ceremony.token")
        gone = missing_keys(self._progress, seat.name, found)
        if gone:
            raise Refused(
                f"the key {gone[0].label!r} is not in it any more",
                check="ceremony.token",
                where=where,
            )
        strange = unexpected(self._script, self._progress, found)
        if not strange:
            return
        named = ", ".join(f"{item.kind} {item.label!r}" for item in strange[:8])
        if self._script.others == "named":
            self._table.show((f"{where} also holds: {named}",))
            return
        raise Refused(
            f"holds what the script does not expect: {named}",
            check="ceremony.objects",
            where=where,
            hint="take another token, destroy them, or publish a script that lists their labels",
        )

    def made(self, outcome: Outcome) -> tuple[MadeKey, ...]:
        """Name the keys that a step made, as the token lists them."""
        keys = []
        for made in outcome.keys:
            seat = self._script.seat(made.person)
            token = self._table.token(seat)
            with token.session():
                label, id_ = _place_of(token, made) or self._new_object(seat)
            keys.append(
                MadeKey(
                    person=made.person,
                    use=made.use,
                    label=plain(label),
                    id=id_,
                    spki=made.spki,
                    check=made.check,
                )
            )
        return tuple(keys)

    def _new_object(self, seat: Seat) -> tuple[str, str]:
        """Return the one private key of this step that the token does not list as an EC key."""
        labels = labels_of(self._script, self._step)
        before = {(item.label, item.id) for item in self.found[seat.name]}
        listed = {key.id.hex() for key in self._table.token(seat).keys()}  # noqa: SIM118
        new = [
            (item.label, item.id)
            for item in self._table.objects(seat)
            if item.kind == "private" and item.label in labels and item.id not in listed
        ]
        new = [place for place in new if place not in before]
        if len(new) != 1:
            raise Refused("the token does not list the key that was made", check="ceremony.keys")
        return new[0]


def _place_of(token: Token, made: NewKey) -> tuple[str, str] | None:
    """Return the label and id (hex) that a key has in its token, if the token lists such keys."""
    if made.use == "wrapping" and made.spki is not None:
        return WRAPPING_LABEL, wrapping_id(made.spki).hex()
    if made.use == "kek":
        keks = wrapping_of(token).keks()
        return next(((k.label, k.id.hex()) for k in keks if k.check == made.check), None)
    listed = token.keys()
    return next(((k.label, k.id.hex()) for k in listed if k.spki == made.spki), None)


def _found(person: str, item: HeldObject) -> FoundObject:
    return FoundObject(person=person, kind=item.kind, label=plain(item.label), id=item.id)


def _used(person: str, token: Token) -> UsedToken:
    info = token.info
    return UsedToken(
        person=person,
        label=plain(info.label),
        manufacturer=plain(info.manufacturer),
        model=plain(info.model),
        serial=plain(info.serial),
        firmware=plain(info.firmware),
        library=plain(info.library),
        profile=plain(info.profile),
        token_class=info.token_class,
    )
