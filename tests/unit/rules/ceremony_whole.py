"""A whole ceremony in memory, with software keys: each kind of step once, and all its files.

A file may be made otherwise (`Otherwise.said`), signed by somebody else (`Otherwise.signer`), or a
record tell otherwise of its step (`Otherwise.done`).  Everything after it follows what was made:
whoever holds the machine writes digests that fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority, issue_certificate, issue_crl, make_csr
from custody.crypto.keyslots import HpkeSuite, SlotKey, SuiteName
from custody.crypto.notekeys import KeyKind, NoteKey
from custody.crypto.signature import public_bytes, sign
from custody.crypto.wrappingkey import wrapping_proof
from custody.encoding import decode, encode, key_id, sha256
from custody.errors import Refused
from custody.formats.admission import Admission, InvitationKeys, ShareClaim, claim_share
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
    Seat,
    SplitRecovery,
    Step,
    TrustKey,
    admission_name,
    challenge_names,
    encode_script,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.envelope import (
    Predicate,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.keybackup import (
    CARRIER_LABEL,
    WRAPPING_LABEL,
    HeldIn,
    KeyAttribute,
    WrappingKey,
    carrier_id,
    wrapping_id,
)
from custody.formats.policy import Role
from custody.formats.policy_text import parse_quorum
from custody.formats.possession import KeptChallenge
from custody.formats.recovery import RecoveryRecord, SealedShare
from custody.formats.transcript import (
    Begun,
    CeremonyRecord,
    Closed,
    Done,
    Event,
    FoundObject,
    KeyUse,
    Line,
    MadeKey,
    NamedFile,
    Opened,
    Told,
    UsedToken,
)
from custody.formats.vendor import KeyAttestation
from custody.ops.admit import CheckedAdmission
from custody.ops.recovery import MadeRecovery, RecoveryOrder, make_recovery, rebuilt_key
from custody.ops.sealed_share import recipient_of, seal_shares
from custody.rules.ceremony import kind_of
from custody.rules.ceremony_vendor import vouched, vouching
from tests.unit import people
from tests.unit.formats import keybackup_examples as backups
from tests.unit.formats.ceremony_example import token
from tests.unit.yubikey import YubiKey

NOW = people.NOW
SIGNERS = ("cas", "ida")
ROLES: dict[str, Role] = {
    "ida": "custodian",
    "cas": "custodian",
    "cyd": "custodian",
    "sec1": "officer",
    "sec2": "officer",
    "pub": "publisher",
    "leo": "log",
}
SUITES: dict[str, SuiteName] = dict.fromkeys(("ida", "cas", "cyd", "sec1"), "P256")
SUITES["sec2"] = "RSA2048_OAEP_SHA256"
ORIGIN = "log.example.com/models"
AMONG = "2 of (ida, cas, cyd)"
KEK, KEK_FILE, CA_FILE = "site", "kek.dsse", "authority-key.dsse"
KEK_ID, CA_ID = b"kek-0123456789abcdef", b"ca-0123456789abcdef"
KEK_CHECK = sha256(b"a check value").hex()
WHO = ("ida", "cas", "cyd", "sec1", "sec2", "pub")

#: Whose keys a vendor has to attest.
VOUCHED = "sec1"
YUBIKEY = YubiKey()
ROOTS = (sha256(YUBIKEY.root).hex(),)

STEPS: tuple[Step, ...] = (
    Invite(by="ida"),
    *(
        Enrol(who=name, suite=SUITES.get(name), attestation="required", roots=ROOTS)
        if name == VOUCHED
        else Enrol(who=name, suite=SUITES.get(name))
        for name in ROLES
    ),
    MakeAuthority(by="ida", name="production authority", recoverable=True),
    MakeLogKey(by="leo", origin=ORIGIN),
    MakeKek(by="leo", label=KEK),
    Admit(by="ida", who=WHO),
    SplitRecovery(by="ida", among=AMONG, suite="P256", seal_to=("ida", "cas")),
    MakePolicy(draft="draft.toml", signers=SIGNERS),
    MakeWrapping(by="ida", opened=("ida", "cas")),
    TrustKey(who="leo"),
    TrustKey(who="ida"),
    BackUp(who="leo", by="ida", kek=KEK, file=KEK_FILE),
    BackUp(who="ida", by="cas", file=CA_FILE),
)


def script() -> Script:
    """What was published."""
    return Script(
        kind="custody/ceremony/v1",
        environment="production",
        title="The first keys of production",
        people=tuple(
            Seat(name=name, role=role, token=f"pkcs11:token={name}") for name, role in ROLES.items()
        ),
        steps=STEPS,
    )


_KINDS: dict[KeyUse, tuple[Literal["private", "public", "secret"], ...]] = {
    "kek": ("secret",),
    "wrapping": ("public",),
}
SCRIPT = encode_script(script())
DIGEST = sha256(SCRIPT).hex()


@dataclass(frozen=True, kw_only=True)
class Otherwise:
    """What is made otherwise, by the names of files and of steps (``trust-key leo``)."""

    said: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    signer: Mapping[str, str] = field(default_factory=dict)
    done: Mapping[str, Callable[[Done], Done]] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """A ceremony: its records, signed by whose tokens worked, and its files."""

    lines: tuple[Line, ...]
    contents: dict[str, bytes]


def used(person: str) -> UsedToken:
    """Somebody's token."""
    return token(person, f"{person} serial")


@cache
def share_key(name: str) -> SlotKey:
    """Somebody's share key, the same all through a run."""
    if SUITES[name].startswith("RSA"):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return people.key(f"{name} share")


def spki(name: str) -> bytes:
    """The public half of a software key."""
    return public_bytes(people.key(name).public_key())


def key(person: str, use: KeyUse, label: str, public: bytes | None, id_: bytes = b"id") -> MadeKey:
    """A key as a record has it."""
    check = None if public is not None else KEK_CHECK
    return MadeKey(person=person, use=use, label=label, id=id_.hex(), spki=public, check=check)


@cache
def attestation(yubikey: YubiKey = YUBIKEY) -> tuple[bytes, ...]:
    """What a YubiKey attests of the keys of `VOUCHED`, up to its vendor's root."""
    share = share_key(VOUCHED)
    assert isinstance(share, ec.EllipticCurvePrivateKey)
    leaves = (
        yubikey.attest(people.key(VOUCHED).public_key(), "9c"),
        yubikey.attest(share.public_key(), "9d"),
    )
    return tuple(sorted((*leaves, yubikey.f9, yubikey.root)))


@cache
def _invitation() -> InvitationKeys:
    return InvitationKeys.generate(environment="production", custodian="ida")


@cache
def _recovery(at: datetime) -> tuple[MadeRecovery, Any]:
    suite: HpkeSuite = "P256"
    order = RecoveryOrder(environment="production", epoch=1, suite=suite, among=parse_quorum(AMONG))
    made = make_recovery(order, signer=people.signer("ida"), token_random=None, now=at)
    words = [handed.words for handed in made.shares[:2]]
    with rebuilt_key(made.record, words, b"") as pair:
        proof = sign(
            pair.key, wrapping_proof(bytes.fromhex(made.record.digest), backups.wrapping().spki)
        )
    return made, proof


def _called(step: Step) -> str:
    if isinstance(step, Enrol | TrustKey | BackUp):
        return f"{kind_of(step)} {step.who}"
    return kind_of(step)


def _offering(step: Step) -> tuple[str, ...]:
    match step:
        case Enrol():
            return (step.who,)
        case Admit():
            return step.who
        case _:
            return ()


class _Table:
    """Makes one ceremony."""

    def __init__(self, otherwise: Otherwise) -> None:
        self._otherwise = otherwise
        self.contents: dict[str, bytes] = {}
        self._events: list[tuple[datetime, Event]] = []
        self._at = NOW

    def whole(self) -> Whole:
        """Do every step."""
        opened = Opened(title="x", people=tuple(ROLES), program="custody")
        self._events.append((NOW, opened))
        for number, step in enumerate(STEPS, 1):
            self._at = NOW + timedelta(minutes=2 * number)
            self._events.append((self._at, Begun(step=number)))
            done = self._do(number, step)
            change = self._otherwise.done.get(_called(step))
            done = done if change is None else change(done)
            self._events.append((self._at + timedelta(minutes=1), done))
        self._at += timedelta(minutes=2)
        files = sorted((name, sha256(data).hex()) for name, data in self._named().items())
        closed = Closed(
            policy=self._policy_digest(),
            files=tuple(NamedFile(name=name, sha256=digest) for name, digest in files),
        )
        self._events.append((self._at, closed))
        return Whole(chained(self._events), self.contents)

    def _named(self) -> dict[str, bytes]:
        named = {f.name for _, e in self._events if isinstance(e, Done) for f in e.files}
        return {name: data for name, data in self.contents.items() if name in named}

    def _policy_digest(self) -> str | None:
        dones = [event for _, event in self._events if isinstance(event, Done)]
        told = [d.told for d in dones if d.do == "policy"]
        return told[0][0].digest if told and told[0] else None

    def put(self, name: str, said: Predicate, *signers: str) -> str:
        """Write a statement; return its digest."""
        said = self._otherwise.said.get(name, lambda s: s)(said)
        names = [self._otherwise.signer.get(name, who) for who in signers]
        signatures = [people.signer(who).signature(said) for who in names]
        self.contents[name] = encode_statement(said, signatures)
        return statement_digest(said)

    def lay(self, name: str, said: Any) -> None:
        """Write a file that nobody signs, or bytes."""
        said = self._otherwise.said.get(name, lambda s: s)(said)
        self.contents[name] = said if isinstance(said, bytes) else encode(said)

    def _do(self, number: int, step: Step) -> Done:
        before = set(self.contents)
        keys: tuple[MadeKey, ...] = ()
        told: list[str] = []
        read: set[str] = set()
        match step:
            case Invite():
                self.lay(INVITATION, _invitation().invitation)
                told = [sha256(self.contents[INVITATION]).hex()]
            case Enrol():
                keys, told = self._enrol(step.who)
            case MakeAuthority():
                keys, told = self._found()
            case MakeLogKey():
                log = NoteKey(name=ORIGIN, kind=KeyKind.ECDSA, public=spki("log"))
                keys = (key("leo", "log", "log", spki("log")),)
                told = [sha256(log.vkey.encode()).hex()]
            case MakeKek():
                keys, told = (key("leo", "kek", KEK, None, KEK_ID),), [KEK_CHECK]
            case Admit():
                read = self._admit()
            case SplitRecovery():
                told = self._split()
                read = {admission_name(name) for name in step.seal_to}
            case MakePolicy():
                told, read = [self._policy()], {admission_name(name) for name in WHO}
            case MakeWrapping():
                told = [self._wrapping()]
                read = {recovery_name(1), *(share_name(1, name) for name in step.opened)}
            case TrustKey():
                public = backups.wrapping().spki
                keys = (key(step.who, "wrapping", WRAPPING_LABEL, public, wrapping_id(public)),)
                told, read = [self._digest(WrappingKey, wrapping_name(1))], {wrapping_name(1)}
            case BackUp():
                told = [self._backup(step)]
                read = {wrapping_name(1), *([AUTHORITY] if step.kek is None else [])}
        names = sorted({*(self.contents.keys() - before), *read})
        return Done(
            step=number,
            do=kind_of(step),
            asked=True,
            tokens=tuple(used(name) for name in step.hands),
            found=tuple(item for name in step.hands for item in self._lies(name)),
            keys=keys,
            attested=tuple(key for who in _offering(step) for key in self._attested(who)),
            files=tuple(NamedFile(name=n, sha256=sha256(self.contents[n]).hex()) for n in names),
            told=tuple(Told(what="it", digest=digest) for digest in told),
            said=(),
        )

    def _lies(self, person: str) -> list[FoundObject]:
        """List what steps before laid into somebody's token."""
        dones = [event for _, event in self._events if isinstance(event, Done)]
        found = []
        for made in (key for done in dones for key in done.keys if key.person == person):
            kinds = _KINDS.get(made.use, ("private", "public"))
            found += [FoundObject(person, kind, made.label, made.id) for kind in kinds]
            if made.use == "wrapping" and made.spki is not None:
                carrier = carrier_id(made.spki).hex()
                found.append(FoundObject(person, "secret", CARRIER_LABEL, carrier))
        return found

    def _digest(self, kind: type[Predicate], name: str) -> str:
        return decode_statement(kind, self.contents[name]).digest

    def _enrol(self, who: str) -> tuple[tuple[MadeKey, ...], list[str]]:
        csr = make_csr(people.key(who), name=who)
        shares: tuple[ShareClaim, ...] = ()
        keys = [key(who, "sign", f"production {who} sign", spki(who))]
        if who in SUITES:
            claim = claim_share(
                share_key(who),
                invitation=_invitation().invitation,
                principal=who,
                csr=csr,
                suite=SUITES[who],
            )
            shares = (claim,)
            keys.append(key(who, "share", f"production {who} share", claim.spki))
        elif ROLES[who] == "publisher":
            keys.append(key(who, "share", f"production {who} share", spki(f"{who} share")))
        said = Admission(
            invitation=sha256(self.contents[INVITATION]).hex(),
            principal=who,
            display=who,
            role=ROLES[who],
            token_class="software",
            csr=csr,
            shares=shares,
            attestation=attestation() if who == VOUCHED else (),
        )
        name = admission_name(who)
        digest = self.put(name, said, who)
        if SUITES.get(who, "").startswith("RSA"):
            ask, told = challenge_names(who)
            kept = KeptChallenge.generate(digest, shares)
            self.lay(ask, kept.challenge)
            self.lay(told, kept.challenge.answered([(SUITES[who], share_key(who))]))
        return tuple(keys), [digest]

    def _found(self) -> tuple[tuple[MadeKey, ...], list[str]]:
        der = issue_authority(
            people.key("ca"),
            name="production authority",
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=3650),
        )
        self.lay(AUTHORITY, der)
        crl = issue_crl(
            people.key("ca"),
            der,
            number=1,
            entries=(),
            this_update=NOW,
            next_update=NOW + timedelta(days=30),
        )
        self.lay(CRL, crl)
        made = key("ida", "ca", "production authority", spki("ca"), CA_ID)
        return (made,), [sha256(self.contents[AUTHORITY]).hex()]

    def _checked(self, who: str) -> CheckedAdmission:
        statement = decode_statement(Admission, self.contents[admission_name(who)])
        return CheckedAdmission(statement=statement, verdicts=(), attested=self._attested(who))

    def _attested(self, who: str) -> tuple[KeyAttestation, ...]:
        name = admission_name(who)
        said = decode_statement(Admission, self.contents[name]).predicate
        admits = next(step for step in STEPS if isinstance(step, Admit))
        try:
            return vouched(vouching(script(), admits, name), said, now=self._at)
        except Refused:  # made otherwise: what is tested is that it is found out
            return ()

    def _admit(self) -> set[str]:
        for who in WHO:
            for number, each in enumerate(self._checked(who).principal.keys):
                der = issue_certificate(
                    people.key("ca"),
                    self.contents[AUTHORITY],
                    spki=each.spki,
                    principal=who,
                    display=who,
                    use="share" if number else "sign",
                    not_before=NOW,
                    not_after=NOW + timedelta(days=397),
                    code_signing=False,
                )
                self.lay(f"{who}.{number}.cer", der)
        return {admission_name(who) for who in WHO}

    def _split(self) -> list[str]:
        made, _ = _recovery(self._at)
        recipients = {n: recipient_of(self._checked(n).principal) for n in ("ida", "cas")}
        sealed, _ = seal_shares(made, recipients)
        name = recovery_name(1)
        digest = self.put(name, made.record.predicate, "ida")
        for each in sealed:
            share = decode(SealedShare, each.data)
            self.lay(share_name(1, each.holder), replace(share, record=digest))
        return [digest]

    def _policy(self) -> str:
        record = decode_statement(RecoveryRecord, self.contents[recovery_name(1)])
        said = people.policy(
            issued_at=self._at,
            principals=tuple(self._checked(who).principal for who in sorted(WHO)),
            authorities=(self.contents[AUTHORITY],),
            recovery=record.predicate.in_policy(record.digest),
        )
        return self.put(POLICY, said, *SIGNERS)

    def _wrapping(self) -> str:
        _, proof = _recovery(self._split_at)
        said = WrappingKey(
            environment="production",
            record=self._digest(RecoveryRecord, recovery_name(1)),
            key=backups.wrapping(),
            proof=proof,
            made_at=self._at,
        )
        return self.put(wrapping_name(1), said, "ida")

    @property
    def _split_at(self) -> datetime:
        number = next(n for n, step in enumerate(STEPS, 1) if isinstance(step, SplitRecovery))
        return NOW + timedelta(minutes=2 * number)

    def _backup(self, step: BackUp) -> str:
        held = used(step.who)
        base = backups.backup() if step.kek is not None else backups.authority()
        label, id_ = (KEK, KEK_ID) if step.kek is not None else ("production authority", CA_ID)
        told = {"LABEL": label, "ID": id_.hex()}
        if step.kek is None:
            told |= {"CLASS": "PRIVATE_KEY", "KEY_TYPE": "EC", "SIGN": "true", "UNWRAP": "false"}
        wrapping = decode_statement(WrappingKey, self.contents[wrapping_name(1)]).predicate
        said = replace(
            base,
            record=wrapping.record,
            wrapping=wrapping.key,
            label=label,
            id=id_,
            check=KEK_CHECK if step.kek is not None else key_id(spki("ca")),
            spki=None if step.kek is not None else spki("ca"),
            attributes=tuple(
                KeyAttribute(name=item.name, value=told.get(item.name, item.value))
                for item in base.attributes
            ),
            held_in=HeldIn(
                label=held.label,
                manufacturer=held.manufacturer,
                model=held.model,
                serial=held.serial,
            ),
            made_at=self._at,
        )
        return self.put(step.file, said, step.by)


def chained(events: Sequence[tuple[datetime, Event]]) -> tuple[Line, ...]:
    """Chain events as records, each signed by whose tokens worked."""
    lines: list[Line] = []
    for number, (at, event) in enumerate(events):
        record = CeremonyRecord(
            environment="production",
            script=DIGEST,
            number=number,
            previous=lines[-1].digest if lines else DIGEST,
            at=at,
            event=event,
        )
        hands: Sequence[str] = ()
        if isinstance(event, Done):
            hands = STEPS[event.step - 1].hands
        elif isinstance(event, Closed):
            hands = tuple(ROLES)
        made = (people.signer(name).signature(record) for name in hands)
        signatures = tuple(sorted(made, key=lambda signature: signature.keyid))
        lines.append(Line(record=record, signatures=signatures))
    return tuple(lines)


def whole(otherwise: Otherwise | None = None) -> Whole:
    """Hold the ceremony."""
    return _Table(otherwise or Otherwise()).whole()
