"""What each kind of step of a ceremony does, with the verbs that do it anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from custody.crypto.certificates import spki_of
from custody.crypto.keyslots import is_oaep
from custody.encoding import Digest, encode, sha256
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import (
    AUTHORITY,
    CRL,
    INVITATION,
    POLICY,
    Admit,
    BackUp,
    Enrol,
    Invite,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    MakePolicy,
    MakeWrapping,
    Script,
    SplitRecovery,
    Step,
    TrustKey,
    admission_name,
    challenge_names,
)
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy, Principal
from custody.formats.policy_draft import MAX_DRAFT_BYTES, decode_draft
from custody.formats.transcript import Told
from custody.keys.api import Token
from custody.keys.wrapapi import wrapping_of
from custody.ops import admit as people
from custody.ops import authority as ca
from custody.ops import ceremony_vendor as vendor
from custody.ops import logs, policies
from custody.ops.actor import signer_of
from custody.ops.ceremony_place import (
    Hands,
    NewKey,
    Outcome,
    Place,
    check_of_table,
)
from custody.ops.ceremony_vendor import vendor_words
from custody.ops.folders import read_file, read_folder, reading
from custody.ops.foresee import foresee
from custody.ops.policy_words import called, describe
from custody.ops.table import Table
from custody.ops.transcript import Transcript
from custody.rules.ceremony_script import SHARING
from custody.rules.verdicts import require


def words_of(script: Script, step: Step) -> str:
    """Say what a step does, before it is done."""
    match step:
        case Invite():
            return f"{step.by} makes the invitation that all admissions answer"
        case Enrol():
            seat = script.seat(step.who)
            return f"{step.who} makes keys as {seat.role} in {seat.token}{vendor_words(step)}"
        case MakeAuthority():
            left = ", whose key can be backed up" if step.recoverable else ""
            return f"{step.by} makes the certificate authority {step.name!r}{left}"
        case MakeLogKey():
            return f"{step.by} makes the key of the log {step.origin}"
        case MakeKek():
            left = "can be backed up" if step.recoverable else "is lost with its token"
            return f"{step.by} makes the key-encryption key {step.label!r}, which {left}"
        case Admit():
            return f"{step.by} admits {', '.join((*step.who, *step.files))}{vendor_words(step)}"
        case MakePolicy():
            return f"{', '.join(step.signers)} sign policy version 1, made of {step.draft}"
        case SplitRecovery() | MakeWrapping() | TrustKey() | BackUp():
            return _recovery_words(step)


def _recovery_words(step: SplitRecovery | MakeWrapping | TrustKey | BackUp) -> str:
    match step:
        case SplitRecovery():
            sealed = f", sealed to tokens of {', '.join(step.seal_to)}" if step.seal_to else ""
            return f"{step.by} makes a recovery key, split among {step.among}{sealed}"
        case MakeWrapping():
            opened = f", opened by tokens of {', '.join(step.opened)}" if step.opened else ""
            return f"{step.by} makes a wrapping key by the shares of its holders{opened}"
        case TrustKey():
            return f"the security officer of {step.who}'s token has it trust the wrapping key"
        case BackUp():
            what = "the authority's key" if step.kek is None else f"the key {step.kek!r}"
            return f"{what} of {step.who} is backed up, signed by {step.by}"


def do_step(step: Step, *, held: Transcript, table: Table, hands: Hands, beside: Path) -> Outcome:
    """Do one step; what it writes lies in the ceremony's folder."""
    place = Place(held=held, table=table, hands=hands, beside=beside)
    match step:
        case Invite():
            return _invite(place, step)
        case Enrol():
            return _enrol(place, step)
        case MakeAuthority():
            return _found(place, step)
        case MakeLogKey():
            return _begin_log(place, step)
        case MakeKek():
            return _make_kek(place, step)
        case Admit():
            return _admit(place, step)
        case MakePolicy():
            return _make_policy(place, step)
        case SplitRecovery() | MakeWrapping() | TrustKey() | BackUp():
            return _recover(place, step)


def _recover(place: Place, step: SplitRecovery | MakeWrapping | TrustKey | BackUp) -> Outcome:
    # SLIP-0039 is an extra: a ceremony without a recovery key needs none of it.
    from custody.ops import ceremony_recovery as recovery  # noqa: PLC0415  an extra

    match step:
        case SplitRecovery():
            return recovery.split(place, step)
        case MakeWrapping():
            return recovery.make_wrapping(place, step)
        case TrustKey():
            return recovery.trust_key(place, step)
        case BackUp():
            return recovery.back_up(place, step)


def _told(what: str, digest: Digest) -> Told:
    return Told(what=what, digest=digest)


def _invite(place: Place, step: Invite) -> Outcome:
    outcome = Outcome()
    invitation = people.invite(
        place.home(step.by), environment=place.script.environment, custodian=step.by
    )
    place.put(outcome, INVITATION, encode(invitation))
    outcome.told.append(_told("the invitation", invitation.digest()))
    return outcome


def _enrol(place: Place, step: Enrol) -> Outcome:
    outcome, seat = Outcome(), place.script.seat(step.who)
    token, home = place.hands.take(step.who), place.home(step.who)
    offer = partial(
        people.enroll,
        home,
        token,
        token_uri=place.table.uri(seat),
        principal=step.who,
        display=seat.display,
        role=seat.role,
        invitation=people.read_invitation(place.held.folder / INVITATION),
        suite=step.suite or ("strongest" if seat.role in SHARING else None),
    )
    admission = offer()
    identity = home.identity()
    if identity.display != (seat.display or seat.name):
        # The script says by which name people are shown: a home from before may say another.
        raise Refused(
            f"{step.who} is called {identity.display!r} by his home, and not as the script has it",
            check="home.taken",
            where=str(home.path),
        )
    outcome.keys.append(NewKey(step.who, "sign", identity.signing_spki))
    outcome.keys += [NewKey(step.who, "share", share.spki) for share in identity.shares]
    if step.attestation is None:
        outcome.said.append(f"{token.info.token_class} token, not attested by its vendor")
    else:
        outcome.said.append(f"{token.info.token_class} token, by its own word")
        # The same keys, which are made now, and what attests them.
        with vendor.of_file(step):
            admission = offer(attestation=vendor.brought(place, step, identity))
            vendor.tell(place, step, outcome, admission)
    path = place.put(outcome, admission_name(step.who), admission)
    told = decode_statement(Admission, admission).digest
    outcome.told.append(_told(f"the admission of {step.who}", told))
    if seat.role in SHARING and any(is_oaep(share.suite) for share in identity.shares):
        _challenge(place, outcome, step.who, token, path)
    return outcome


def _challenge(place: Place, outcome: Outcome, who: str, token: Token, admission: Path) -> None:
    """Have a share key that only decrypts shown to be its owner's, at once."""
    inviting = place.home(place.invited_by)
    ask, told = challenge_names(who)
    asked = place.put(outcome, ask, people.challenge(inviting, admission))
    answer = people.answer(place.home(who), token, asked)
    people.take_answer(inviting, place.put(outcome, told, answer))
    outcome.said.append("its share key only decrypts, and has answered a challenge")


def _found(place: Place, step: MakeAuthority) -> Outcome:
    outcome, home = Outcome(), place.home(step.by)
    token = place.hands.take(step.by)
    with token.session():
        certificate = ca.found_authority(
            home, token, name=step.name, now=place.table.now(), recoverable=step.recoverable
        )
    place.put(outcome, AUTHORITY, certificate)
    place.put(outcome, CRL, ca.newest_crl(home))
    outcome.keys.append(NewKey(step.by, "ca", spki_of(certificate)))
    outcome.told.append(_told("the authority's certificate", sha256(certificate).hex()))
    return outcome


def _begin_log(place: Place, step: MakeLogKey) -> Outcome:
    outcome, home = Outcome(), place.home(step.by)
    token = place.hands.take(step.by)
    with token.session():
        key = logs.init_log(
            home,
            place.table.store(place.held.folder / step.folder),
            token,
            uri=place.table.uri(place.script.seat(step.by)),
            origin=step.origin,
            label=step.label,
        )
    outcome.keys.append(NewKey(step.by, "log", logs.log_identity(home).spki))
    outcome.said.append(f"the log's verifier key: {key.vkey}")
    outcome.told.append(_told("the log's verifier key", sha256(key.vkey.encode()).hex()))
    return outcome


def _make_kek(place: Place, step: MakeKek) -> Outcome:
    outcome, token = Outcome(), place.hands.take(step.by)
    with token.session():
        made = wrapping_of(token).make_kek(step.label, recoverable=step.recoverable).info
    outcome.keys.append(NewKey(step.by, "kek", None, made.check))
    outcome.said.append(f"wraps by {made.mechanism}")
    outcome.told.append(_told(f"the check value of {step.label}", made.check))
    return outcome


def _admit(place: Place, step: Admit) -> Outcome:
    outcome, home = Outcome(), place.home(step.by)
    names = (*(admission_name(name) for name in step.who), *step.files)
    checked = [_checked(place, step, outcome, name) for name in names]
    for admission in checked:
        outcome.attested += admission.attested
        person = admission.principal
        roles = ", ".join(person.roles)
        by_vendor = [
            f"  key {x.key[:16]}… is {x.words()}, by its vendor" for x in admission.attested
        ]
        place.table.show([f"  {called(person)}: {roles}", *by_vendor])
        place.table.speak(f"the admission of {person.id}", admission.statement.digest)
        outcome.said.append(
            f"{person.id} is admitted as {roles}, by the admission {admission.statement.digest}"
        )
    place.table.confirm("admit them?")
    token = place.hands.take(step.by)
    with token.session():
        authority = ca.open_authority(home, token)
        life, now = timedelta(days=step.days), place.table.now()
        for name, admission in zip(names, checked, strict=True):
            vendor.keep_attested(place, step, name, admission)
            for issued in ca.issue(authority, admission, now=now, life=life):
                place.put(outcome, issued.name, issued.der)
            people.keep(home, admission)
    return outcome


def _make_policy(place: Place, step: MakePolicy) -> Outcome:
    outcome, folder = Outcome(), place.held.folder
    path, now = place.beside / step.draft, place.table.now()
    # Read once: the digest on record is of the bytes that are judged.
    written = read_file(path, max_bytes=MAX_DRAFT_BYTES)
    with reading(path):
        draft = decode_draft(written)
    policy = policies.build_policy(
        draft, folder=path.parent, people=_admitted(place, outcome), previous=None, now=now
    )
    if policy.environment != place.script.environment:
        raise Refused(f"is of {policy.environment}", check="policy.environment", where=step.draft)
    check_of_table(policy, place.script, place.held.progress, folder)
    require(foresee(policy, previous=None, known=read_folder(folder), now=now).verdicts)
    place.table.show([f"  {line}" for line in describe(policy)])
    place.table.confirm("sign it?")
    data: bytes | None = None
    for name in step.signers:
        signer = signer_of(place.home(name).identity(), place.hands.take(name))
        # A table waits for people too: each signs what is good when his token is there.
        now = place.table.now()
        require(foresee(policy, previous=None, known=read_folder(folder), now=now).verdicts)
        if data is None:
            data = policies.propose(policy, signer=signer, previous=None)
        else:
            statement = decode_statement(Policy, data)
            data = policies.add_signature(statement, signer=signer, previous=None, now=now)
    if data is None:
        raise AssertionError("internal: a policy that nobody signs")
    place.put(outcome, POLICY, data)
    outcome.told.append(_told("policy version 1", decode_statement(Policy, data).digest))
    outcome.said.append(f"{step.draft} has SHA-256 {sha256(written).hex()}")
    return outcome


def _admitted(place: Place, outcome: Outcome) -> Sequence[Principal]:
    """Return everybody who was admitted before this step, checked again."""
    done = place.script.steps[: place.held.progress.done]
    return [
        _checked(place, step, outcome, name).principal
        for step in done
        if isinstance(step, Admit)
        for name in (*(admission_name(who) for who in step.who), *step.files)
    ]


def _checked(place: Place, step: Admit, outcome: Outcome, name: str) -> people.CheckedAdmission:
    checked = people.check(place.home(place.invited_by), place.read(outcome, name))
    return vendor.attested(place, step, name, checked)
